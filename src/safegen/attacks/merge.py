"""Merging with the original: a weighted mean of the defended and the undefended weights.

Merged checkpoints are what people share most. Whoever has the original needs no attack; this
measures how much of it a merge may hold until the concept is back, and so how firmly an edit sits.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from safegen.attacks import AttackIdentity, register
from safegen.attacks._weights import WeightChange
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.profiles import NO_SETTINGS, Settings


@dataclass(frozen=True)
class MergeSettings:
    """Settings of a merge.

    Attributes:
        share: share of the original's weights, in (0, 1).
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and 0 < self.share < 1):
            raise SafegenError(f"merge: a share lies in (0, 1), and {self.share:g} does not")


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
def merge(share: str = "0.5", *, usual: Settings = NO_SETTINGS) -> Merge:
    """Weighted mean with the original's weights, such as merge:0.25."""
    try:
        return Merge(MergeSettings(**{**usual, "share": float(share)}))
    except ValueError:
        raise SafegenError(f"merge: {share!r} is no share; write one such as merge:0.25") from None
