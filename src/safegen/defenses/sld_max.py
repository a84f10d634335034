"""Safe Latent Diffusion in the paper's configuration Hyp-Max."""

from __future__ import annotations

from typing import Any

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import MAX, SafeLatentDiffusion, SldChanges, create
from safegen.registry import takes


@register("sld-max")
@takes(SldChanges)
def sld_max(*, concept: Concept, **changes: Any) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Max."""
    return create("sld-max", concept, MAX, SldChanges(**changes))
