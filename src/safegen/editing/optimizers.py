"""Optimizers of the trained weights: AdamW, or Muon for the matrices."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch

from safegen.editing.settings import Optimisation

MUON_RATE = 20.0
"""Spectral norm of a Muon step, as a multiple of AdamW's learning rate."""
CLIPPED = 1.0
"""Largest norm of the gradient of all weights."""
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def optimizers_for(
    parameters: Iterable[torch.nn.Parameter], settings: Optimisation
) -> list[torch.optim.Optimizer]:
    """Make AdamW for all parameters, or Muon for matrices and AdamW for the rest.

    Muon (https://kellerjordan.github.io/posts/muon) gives every direction of a matrix's step the
    same length, so a few directions of large gradients do not dominate; it keeps one moment where
    AdamW keeps two.
    """
    parameters = list(parameters)
    if settings.optimizer == "adamw":
        return [torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=True)]
    matrices = [parameter for parameter in parameters if parameter.ndim == 2]
    others = [parameter for parameter in parameters if parameter.ndim != 2]
    rate = MUON_RATE * settings.learning_rate
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=rate, weight_decay=0.0))
    if others:
        made.append(torch.optim.AdamW(others, lr=settings.learning_rate, fused=True))
    return made


class Optimizers:
    """Optimizers of all trained weights, stepped together.

    fp16 needs one shared loss scale, or small gradients vanish.

    Args:
        parameters: trained weights, on their device.
        settings: settings of the optimisation.
        scaled: whether to scale the loss.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        settings: Optimisation,
        scaled: bool = False,
    ) -> None:
        self._parameters = list(parameters)
        self._optimizers = optimizers_for(self._parameters, settings)
        device = self._parameters[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=scaled)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> None:
        """Step along the gradients, clipped to norm 1, and clear them.

        Args:
            rate: AdamW's learning rate; Muon's is derived from it.
        """
        for optimizer in self._optimizers:
            self._scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIPPED)
        for optimizer in self._optimizers:
            set_rate(optimizer, rate)
            self._scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()

    def moment_bytes(self) -> int:
        """Size of the optimizers' moments in bytes."""
        states = chain.from_iterable(each.state.values() for each in self._optimizers)
        return sum(state[name].nbytes for state in states for name in MOMENTS if name in state)

    def state_dict(self) -> dict[str, Any]:
        """State for ``load_state_dict``."""
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {"optimizers": optimizers, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        for optimizer, moments in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        self._scaler.load_state_dict(state["scaler"])


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, given as AdamW's."""
    factor = MUON_RATE if isinstance(optimizer, torch.optim.Muon) else 1.0
    for group in optimizer.param_groups:
        group["lr"] = factor * rate


def predicted_moment_bytes(parameters: Iterable[torch.nn.Parameter], settings: Optimisation) -> int:
    """Predict ``Optimizers.moment_bytes`` before the first step."""
    moments = {torch.optim.Muon: 1, torch.optim.AdamW: 2}
    return sum(
        moments[type(optimizer)] * parameter.nbytes
        for optimizer in optimizers_for(parameters, settings)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
