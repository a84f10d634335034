"""Safe Latent Diffusion in the paper's configuration Hyp-Weak."""

from __future__ import annotations

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses._sld import WEAK, SafeLatentDiffusion, create


@register("sld-weak")
def sld_weak(*, concept: Concept) -> SafeLatentDiffusion:
    """Guidance away from the concept's text, Hyp-Weak."""
    return create("sld-weak", concept, WEAK)
