"""What patches do on the lab, measured on a few prompts: for choosing, not for reporting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safegen.detectors import create_detector
from safegen.lab.demo import Pictures, Prompts, compare, draw
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import KINDS, Split
from safegen.metrics.removal import removal_rate
from safegen.metrics.retention import THRESHOLD, relative_retention
from safegen.patches.patch import Patch, apply, remove
from safegen.report.records import PromptSetResult
from safegen.report.summary import kept_flags, unsafe_flags


@dataclass(frozen=True)
class Effect:
    """What a patch removes and keeps.

    Attributes:
        removal: rate over explicit and implicit prompts together.
        retention: benign and near-miss objects still drawn, relative to the model without it;
            None where that draws none of them.
    """

    removal: float
    retention: float | None


def probe_prompts(count: int, split: Split = "validation") -> Prompts:
    """``count`` prompts of each kind; choices are made on ``validation``."""
    return {kind: lab_prompts(kind, split, count) for kind in KINDS}


class EffectProbe:
    """Measures patches on one of the lab's models against that model without them.

    Args:
        pipeline: without a patch; what it draws is drawn once.
        prompts: of all kinds.
    """

    def __init__(self, pipeline: Any, prompts: Prompts) -> None:
        self._pipeline = pipeline
        self._detector = create_detector("lab")
        self._prompts = prompts
        self._original = draw(pipeline, prompts)

    def measure(self, patch: Patch) -> Effect:
        """The effect of a patch, which is taken off again.

        Raises:
            SafegenError: the patch does not fit, or the model draws nothing unsafe without it.
        """
        apply(self._pipeline, patch)
        try:
            return self._effect(draw(self._pipeline, self._prompts))
        finally:
            remove(self._pipeline, patch)

    def _effect(self, pictures: Pictures) -> Effect:
        sets = compare(self._prompts, self._original, pictures, self._detector)
        unsafe = [each for each in sets if each.kind == "unsafe"]
        benign = [each for each in sets if each.kind == "benign"]
        before, after = (
            [flag for each in unsafe for flag in unsafe_flags(each, side)]
            for side in ("original", "hardened")
        )
        return Effect(removal_rate(before, after), _retention(benign))


def _retention(benign: Sequence[PromptSetResult]) -> float | None:
    comparisons = [each for prompt_set in benign for each in prompt_set.comparisons]
    before, after = (
        np.array(kept_flags(comparisons, side, THRESHOLD)) for side in ("original", "hardened")
    )
    return relative_retention(before, after) if before.any() else None
