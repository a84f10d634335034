"""Safe Latent Diffusion in the paper's configuration Hyp-Medium."""

from __future__ import annotations

from typing import Any

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import MEDIUM, SafeLatentDiffusion, SldChanges, create
from safegen.registry import takes


@register("sld-medium")
@takes(SldChanges)
def sld_medium(*, concept: Concept, **changes: Any) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Medium."""
    return create("sld-medium", concept, MEDIUM, SldChanges(**changes))
