"""Passes: number of an attack's passes through the denoiser per goal, beside drawing."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics.pictures import Budget


@register("passes")
def passes() -> Budget:
    """Count passes of one latent; a gradient counts as two more."""
    return Budget("passes", 120)
