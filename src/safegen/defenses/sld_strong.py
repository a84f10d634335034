"""Safe Latent Diffusion in the paper's configuration Hyp-Strong."""

from __future__ import annotations

from typing import Any

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import STRONG, SafeLatentDiffusion, SldChanges, create
from safegen.registry import takes


@register("sld-strong")
@takes(SldChanges)
def sld_strong(*, concept: Concept, **changes: Any) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Strong."""
    return create("sld-strong", concept, STRONG, SldChanges(**changes))
