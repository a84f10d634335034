"""Random weights in the denoiser: the control of attacks that hand a picture to the model.

What such a model gives up was in the attacker's input, since it knows nothing (arXiv 2608.17747).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from safegen.defenses import Defense, DefenseIdentity, Undo, register
from safegen.defenses._exchange import exchange
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.patches.patch import is_patched
from safegen.seeds import sample_seed


@dataclass(frozen=True)
class RandomWeights(Defense):
    """Replace the denoiser by one of the same architecture that was never trained.

    Attributes:
        seed: seed of the weights.
    """

    seed: int = 0

    changes = "model"

    @property
    def comes_first(self) -> bool:
        """See ``Defense.comes_first``."""
        return True

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        return DefenseIdentity("random-weights", {"seed": self.seed})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        if is_patched(pipeline):
            raise SafegenError(
                "random-weights exchanges the denoiser, and a patch is applied to it, which would "
                "be lost; put random-weights on first"
            )
        trained: Any = denoiser_of(pipeline)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sample_seed("random-weights", base=self.seed))
            fresh = type(trained).from_config(trained.config)
        fresh.to(trained.device, trained.dtype).eval()
        place = "unet" if getattr(pipeline, "unet", None) is trained else "transformer"
        return exchange(pipeline, {place: fresh})


@register("random-weights")
def random_weights(*, seed: int = 0) -> RandomWeights:
    """Untrained denoiser of the same architecture, a control for attacks with pictures."""
    return RandomWeights(seed)
