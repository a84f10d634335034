"""What a training changes from step to step, and goes on from after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safegen.editing.conditions import Conditions
from safegen.editing.optimizers import Optimizers
from safegen.editing.rehearsal import Rehearsal


@dataclass(frozen=True)
class TrainingState:
    """The state of a training.

    Attributes:
        weights: that are trained, by name.
        average: their moving average, which is the result.
        optimizers: of the weights.
        conditions: whose adversaries move.
        rehearsal: whose movement lasts until the next one.
    """

    weights: Mapping[str, torch.nn.Parameter]
    average: Mapping[str, torch.Tensor]
    optimizers: Optimizers
    conditions: Conditions
    rehearsal: Rehearsal

    def saved(self) -> dict[str, Any]:
        """What ``restore`` takes, as a checkpoint holds it."""
        return {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average": dict(self.average),
            "adversaries": self.conditions.adversaries,
            "rehearsal": self.rehearsal.movement,
            **self.optimizers.state_dict(),
        }

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        for name, weight in self.weights.items():
            weight.copy_(saved["weights"][name])
            self.average[name].copy_(saved["average"][name])
        for name, value in self.conditions.adversaries.items():
            value.copy_(saved["adversaries"][name])
        device = next(iter(self.weights.values())).device
        moved = {name: value.to(device) for name, value in saved["rehearsal"].items()}
        self.rehearsal.movement = moved
        self.optimizers.load_state_dict(dict(saved))
