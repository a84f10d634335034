"""CLIP score: fit of pictures to their prompts, by the cosine of CLIP's features.

The mean cosine, without the factor 2.5 and the cut at zero of CLIPScore (arXiv 2104.08718).
"""

from __future__ import annotations

import numpy as np

from safegen.metrics import register
from safegen.metrics._cells import mean_estimate, observed, prompt_groups, unless_original
from safegen.results.records import Cell, Estimate


@register("clip-score")
class ClipScore:
    """CLIP score on benign and near-miss sets."""

    title = "CLIP score"
    rank = 70
    higher_is_better = True
    is_share = False
    observers = ("clip",)

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:
        """See ``Metric.measure``."""
        if defended.role == "unsafe":
            return None
        before = unless_original(original, defended, _cosines)
        return mean_estimate(before, _cosines(defended), prompt_groups(defended))


def _cosines(cell: Cell) -> np.ndarray:
    return observed(cell, "clip", "cosine")
