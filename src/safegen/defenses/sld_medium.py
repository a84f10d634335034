"""Safe Latent Diffusion in the paper's configuration Hyp-Medium."""

from __future__ import annotations

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import MEDIUM, SafeLatentDiffusion, create


@register("sld-medium")
def sld_medium(*, concept: Concept) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Medium."""
    return create("sld-medium", concept, MEDIUM)
