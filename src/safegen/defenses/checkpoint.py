"""A finished model, whoever made it, as a patch on the model that it was made from."""

from __future__ import annotations

from safegen.defenses import register
from safegen.defenses.erasing import PatchDefense, load_patch_defense


@register("checkpoint")
def checkpoint(patch: str) -> PatchDefense:
    """The patch that ``safegen export BASE --from MODEL --format patch`` wrote."""
    return load_patch_defense("checkpoint", patch)
