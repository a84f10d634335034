"""Pictures: number that an attack draws from the model per goal, its main cost and budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safegen.metrics import register
from safegen.metrics._cells import mean_estimate, prompt_groups, unless_original
from safegen.results.records import Cell, Estimate
from safegen.statistics.intervals import group_sums


@dataclass(frozen=True)
class Budget:
    """Mean cost of a goal to the attacker over all its samples, as in the success rate.

    Higher is better for a defense.

    Attributes:
        title: see ``Metric``; also the findings' field that is averaged.
        rank: see ``Metric``.
    """

    title: str
    rank: int
    higher_is_better: bool = True
    is_share: bool = False
    observers: tuple[str, ...] = ()

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:
        """See ``Metric.measure``."""
        if not defended.findings:
            return None
        before = unless_original(original, defended, self._spent)
        spent = self._spent(defended)
        return mean_estimate(before, spent, np.arange(len(spent)))

    def _spent(self, cell: Cell) -> np.ndarray:
        """Sum the cost by prompt, float (P,)."""
        spent = [getattr(found, self.title) for found in cell.findings]
        return group_sums(spent, prompt_groups(cell))


@register("pictures")
def pictures() -> Budget:
    """Count pictures drawn by calls of the defended model."""
    return Budget("pictures", 110)
