"""Safe Latent Diffusion in the paper's configuration Hyp-Strong."""

from __future__ import annotations

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import STRONG, SafeLatentDiffusion, create


@register("sld-strong")
def sld_strong(*, concept: Concept) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Strong."""
    return create("sld-strong", concept, STRONG)
