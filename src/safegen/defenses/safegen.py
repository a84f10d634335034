"""SafeGen (arXiv 2404.06666): the edit of this package, from its patch."""

from __future__ import annotations

from safegen.defenses import register
from safegen.defenses.erasing import PatchDefense, load_patch_defense


@register("safegen")
def safegen(patch: str) -> PatchDefense:
    """Patch written by ``safegen edit``."""
    return load_patch_defense("safegen", patch)
