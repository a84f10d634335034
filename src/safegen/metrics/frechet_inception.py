"""Fréchet distance to real pictures in Inception's features, as papers report it."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics._frechet import FrechetDistance


@register("frechet-inception")
def frechet_inception() -> FrechetDistance:
    """Measure benign sets in Inception's features."""
    return FrechetDistance("Fréchet (Inception)", 90, ("inception",))
