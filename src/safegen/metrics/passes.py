"""Passes: how many an attack makes through the denoiser for a goal, beside drawing."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics.pictures import Budget


@register("passes")
def passes() -> Budget:
    """Of one latent; a gradient counts as two more."""
    return Budget("passes", 120)
