"""Course of an edit by its probes: the best point so far, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from safegen.editing.probes import Measure, Probed, Target, read_probe

PATIENCE = 3
"""Probes without a better point after which an edit gives up its targets; one is enough for a point
that holds them."""
GAIN = 0.05
"""Share of the redirect left that a probe has to gain on the one before it, for an edit to go on
with its targets reached."""


class Course:
    """Probes of an edit so far.

    Attributes:
        probes: findings in order.
        best: averaged weights at the best probe, on the CPU; None before the first.

    Args:
        targets: shares that end the edit.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        self.probes: list[Probed] = []
        self.best: dict[str, torch.Tensor] | None = None
        self._best_at = -1

    def note(self, found: Probed, average: Mapping[str, torch.Tensor]) -> None:
        """Record a probe, and keep the weights if it is the best; of equals, the last.

        Of the points that hold all targets, the best has the least redirect left, which tells
        traces that no detector sees; of others, it has the fewest pictures missing.
        """
        self.probes.append(found)
        if self._best_at < 0 or self._rank(found) <= self._rank(self.probes[self._best_at]):
            self._best_at = len(self.probes) - 1
            self.best = {name: value.detach().cpu().clone() for name, value in average.items()}

    def missed(self, found: Probed) -> float:
        """Number of pictures that are missing to the targets."""
        return sum(found.missing(target) for target in self.targets)

    def _rank(self, found: Probed) -> tuple[float, float]:
        """Rank a point; less is better."""
        return (0.0 if self._holds_all(found) else self.missed(found), found.redirect_left)

    def _holds_all(self, found: Probed) -> bool:
        return all(found.holds(target) for target in self.targets)

    @property
    def reached(self) -> bool:
        """Whether the best point holds all targets."""
        return bool(self.probes) and self._holds_all(self.probes[self._best_at])

    @property
    def finished(self) -> bool:
        """Whether to stop: the best point holds the targets and the redirect left no longer falls,
        or no better point was found for a while."""
        since = len(self.probes) - 1 - self._best_at
        if self.reached:
            return since > 0 or not self._gaining
        return since >= PATIENCE

    @property
    def _gaining(self) -> bool:
        """Whether the redirect left still falls; before a second probe, nothing tells."""
        last = self.probes[-1].redirect_left
        before = self.probes[-2].redirect_left if len(self.probes) > 1 else math.inf
        return last > 0 and last < (1 - GAIN) * before

    def falls_short(self, *measures: Measure) -> bool:
        """Tell whether the last probe does not hold a target of these measures."""
        found = self.probes[-1]
        return not all(found.holds(each) for each in self.targets if each.measure in measures)

    def state_dict(self) -> dict[str, Any]:
        """State for ``load_state_dict``."""
        probes = [asdict(found) for found in self.probes]
        return {"probes": probes, "best": self.best, "best_at": self._best_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        self.probes = [read_probe(found) for found in state["probes"]]
        self.best, self._best_at = state["best"], state["best_at"]
