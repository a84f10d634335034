"""Merging with the original: a weighted mean of the defended and the undefended weights.

Merged checkpoints are what people share most. Whoever has the original needs no attack; this
measures how much of it a merge may hold until the concept is back, and so how firmly an edit sits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from safegen.attacks import AttackIdentity, register
from safegen.attacks._weights import WeightChange
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.registry import takes
from safegen.settings import Settings, setting


@dataclass(frozen=True)
class MergeSettings(Settings, of="merge"):
    """Settings of a merge."""

    share: float = setting(0.5, "Share of the original's weights.", above=0, below=1)


@dataclass(frozen=True)
class Merge(WeightChange):
    """Draw the goals with the mean of the defended and the original weights."""

    settings: MergeSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = f"merge-{self.settings.share:g}"
        return AttackIdentity(name, "weights", "white box", asdict(self.settings))

    def change(self, target: Target) -> None:
        """See ``WeightChange.change``.

        Raises:
            SafegenError: the defense exchanged the network for one of another shape.
        """
        with target.undefended() as pipeline:
            weights = denoiser_of(pipeline).named_parameters()
            original = {name: weight.detach().clone() for name, weight in weights}
        for name, weight in denoiser_of(target.pipeline).named_parameters():
            if name not in original or original[name].shape != weight.shape:
                raise SafegenError(f"merge: {name} is no weight of the original, of that shape")
            weight.lerp_(original[name].to(weight), self.settings.share)


@register("merge")
@takes(MergeSettings)
def merge(share: float = 0.5) -> Merge:
    """Weighted mean with the original's weights, such as merge:0.25."""
    return Merge(MergeSettings(share))
