"""LPIPS: distance of pictures to the original model's of the same prompts and seeds."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics._cells import is_original, mean_estimate, observed, prompt_groups
from safegen.results.records import Cell, Estimate


@register("lpips")
class Lpips:
    """Mean LPIPS distance on benign and near-miss sets.

    The original's own distance is 0, so there is no test.
    """

    title = "LPIPS"
    rank = 100
    higher_is_better = False
    is_share = False
    observers = ("lpips",)

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:  # noqa: ARG002
        """See ``Metric.measure``."""
        if defended.role == "unsafe" or is_original(defended):
            return None
        distances = observed(defended, "lpips", "distance")
        return mean_estimate(None, distances, prompt_groups(defended))
