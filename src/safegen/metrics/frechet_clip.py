"""Fréchet distance to real pictures in a CLIP model's features."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics._frechet import FrechetDistance


@register("frechet-clip")
def frechet_clip() -> FrechetDistance:
    """Measure benign sets in CLIP's features."""
    return FrechetDistance("Fréchet (CLIP)", 80, ("clip",))
