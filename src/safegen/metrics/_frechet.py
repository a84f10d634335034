"""Fréchet distance of drawn to real pictures, in the features of an observer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safegen.metrics._cells import features, mean_estimate, prompt_groups, unless_original
from safegen.results.records import Cell, Estimate
from safegen.statistics.frechet import frechet_contributions


@dataclass(frozen=True)
class FrechetDistance:
    """Fréchet distance of benign sets to real pictures.

    Interval and test rest on the pictures' contributions to the distance.

    Attributes:
        title: see ``Metric``.
        rank: see ``Metric``.
        observers: observer of the features.
    """

    title: str
    rank: int
    observers: tuple[str, ...]
    higher_is_better: bool = False
    is_share: bool = False

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:
        """See ``Metric.measure``; None without real pictures or with fewer than two drawn ones."""
        real = defended.references.get(self.observers[0])
        if defended.role != "benign" or real is None or len(defended.items) < 2:
            return None

        def contributions(cell: Cell) -> np.ndarray:
            return frechet_contributions(features(cell, self.observers[0]), real)

        before = unless_original(original, defended, contributions)
        return mean_estimate(before, contributions(defended), prompt_groups(defended), lowest=0)
