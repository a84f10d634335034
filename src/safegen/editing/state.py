"""Training state: everything that changes from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safegen.editing.conditions import Conditions
from safegen.editing.constraint import Constraint
from safegen.editing.optimizers import Optimizers
from safegen.editing.rehearsal import Rehearsal


@dataclass(frozen=True)
class TrainingState:
    """State of a training.

    Attributes:
        weights: trained weights by name.
        average: moving average of the weights, which is the result.
        optimizers: optimizers of the weights.
        conditions: text conditions with the moving adversaries.
        rehearsal: rehearsal, whose movement lasts until the next one.
        constraint: multiplier of the preserve loss.
    """

    weights: Mapping[str, torch.nn.Parameter]
    average: Mapping[str, torch.Tensor]
    optimizers: Optimizers
    conditions: Conditions
    rehearsal: Rehearsal
    constraint: Constraint

    def saved(self) -> dict[str, Any]:
        """Export the state for a checkpoint; ``restore`` reads it."""
        return {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average": dict(self.average),
            "adversaries": self.conditions.adversaries,
            "rehearsal": self.rehearsal.movement,
            "constraint": self.constraint.state_dict(),
            **self.optimizers.state_dict(),
        }

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name, weight in self.weights.items():
            weight.copy_(saved["weights"][name])
            self.average[name].copy_(saved["average"][name])
        for name, value in self.conditions.adversaries.items():
            value.copy_(saved["adversaries"][name])
        device = next(iter(self.weights.values())).device
        moved = {name: value.to(device) for name, value in saved["rehearsal"].items()}
        self.rehearsal.movement = moved
        self.constraint.load_state_dict(saved["constraint"])
        self.optimizers.load_state_dict(dict(saved))
