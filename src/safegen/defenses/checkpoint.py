"""Finished models of any origin, as patches on their base model."""

from __future__ import annotations

from safegen.defenses import register
from safegen.defenses.erasing import PatchDefense, load_patch_defense


@register("checkpoint")
def checkpoint(patch: str) -> PatchDefense:
    """Patch written by ``safegen export BASE --from MODEL --format patch``."""
    return load_patch_defense("checkpoint", patch)
