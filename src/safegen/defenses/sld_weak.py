"""Safe Latent Diffusion in the paper's configuration Hyp-Weak."""

from __future__ import annotations

from typing import Any

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import WEAK, SafeLatentDiffusion, SldChanges, create
from safegen.registry import takes


@register("sld-weak")
@takes(SldChanges)
def sld_weak(*, concept: Concept, **changes: Any) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Weak."""
    return create("sld-weak", concept, WEAK, SldChanges(**changes))
