"""Optimizers of the trained weights: AdamW, or Muon for the matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch

from safegen.editing.settings import Optimisation
from safegen.muon import Muon

CLIPPED = 2.0
"""Largest norm of the gradient of all weights, as a multiple of its mean so far."""
REMEMBERED = 0.9
"""Decay of that mean."""
SMALLEST = 1e-15
"""Adam's epsilon, below the gradients of losses in any unit."""
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def optimizers_for(
    parameters: Mapping[str, torch.nn.Parameter],
    lengths: Mapping[str, float],
    settings: Optimisation,
) -> list[torch.optim.Optimizer]:
    """Make AdamW for all parameters, or Muon for matrices and Adam for the rest.

    Muon (https://kellerjordan.github.io/posts/muon) gives every direction of a matrix's step the
    same length, so a few directions of large gradients do not dominate. Each parameter is a group,
    whose ``unit`` is the learning rate at which a step is as long as ``lengths`` says.
    """
    if settings.optimizer == "adamw":
        groups = [{"params": list(parameters.values()), "unit": settings.learning_rate}]
        return [torch.optim.AdamW(groups, fused=True)]
    matrices, others = [], []
    for name, parameter in parameters.items():
        length = settings.step_size * lengths[name]
        if parameter.ndim == 2:
            # The step has min(rows, columns) singular values of sqrt(max(1, rows / columns)).
            rows, columns = parameter.shape
            unit = length / (min(rows, columns) * max(1, rows / columns)) ** 0.5
            matrices.append({"params": [parameter], "unit": unit})
        else:
            others.append({"params": [parameter], "unit": length / parameter.numel() ** 0.5})
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices))
    if others:
        made.append(torch.optim.AdamW(others, weight_decay=0.0, eps=SMALLEST, fused=True))
    return made


class Optimizers:
    """Optimizers of all trained weights, stepped together.

    fp16 needs one shared loss scale, or small gradients vanish.

    Args:
        parameters: trained weights by name, on their device.
        lengths: norm by name that a step's length is a share of.
        settings: settings of the optimisation.
        scaled: whether to scale the loss.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        lengths: Mapping[str, float],
        settings: Optimisation,
        scaled: bool = False,
    ) -> None:
        self._parameters = list(parameters.values())
        self._optimizers = optimizers_for(parameters, lengths, settings)
        self._typical: float | None = None
        device = self._parameters[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=scaled)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, share: float) -> None:
        """Step along the gradients and clear them.

        Gradients longer than ``CLIPPED`` times the mean so far are shortened to it.

        Args:
            share: share of the full step.
        """
        for optimizer in self._optimizers:
            self._scaler.unscale_(optimizer)
        self._clip()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * group["unit"]
            self._scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()

    def _clip(self) -> None:
        """Shorten outliers among gradients; a fixed bound would have the losses' units."""
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        length = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(length):  # a loss scale of fp16 that overflows; the step is left out
            return
        typical = length if self._typical is None else self._typical
        bounded = min(length, CLIPPED * typical)
        torch.nn.utils.clip_grads_with_norm_(
            self._parameters, CLIPPED * typical, torch.tensor(length)
        )
        self._typical = REMEMBERED * typical + (1 - REMEMBERED) * bounded

    def moment_bytes(self) -> int:
        """Size of the optimizers' moments in bytes."""
        states = chain.from_iterable(each.state.values() for each in self._optimizers)
        return sum(state[name].nbytes for state in states for name in MOMENTS if name in state)

    def state_dict(self) -> dict[str, Any]:
        """State for ``load_state_dict``."""
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {
            "optimizers": optimizers,
            "scaler": self._scaler.state_dict(),
            "typical": self._typical,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        for optimizer, moments in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        self._scaler.load_state_dict(state["scaler"])
        self._typical = state["typical"]


def predicted_moment_bytes(
    parameters: Mapping[str, torch.nn.Parameter], settings: Optimisation
) -> int:
    """Predict ``Optimizers.moment_bytes`` before the first step."""
    muon = settings.optimizer == "muon"
    return sum(
        parameter.nbytes * (1 if muon and parameter.ndim == 2 else 2)
        for parameter in parameters.values()
    )
