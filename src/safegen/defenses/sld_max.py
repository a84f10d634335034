"""Safe Latent Diffusion in the paper's configuration Hyp-Max."""

from __future__ import annotations

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import MAX, SafeLatentDiffusion, create


@register("sld-max")
def sld_max(*, concept: Concept) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Max."""
    return create("sld-max", concept, MAX)
