"""What moves the trained weights: AdamW, or Muon for the matrices among them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch

from safegen.editing.settings import Optimisation

MUON_RATE = 20.0
"""Spectral norm of a step of Muon, as a multiple of the learning rate of AdamW."""
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def optimizers_for(
    parameters: Iterable[torch.nn.Parameter], settings: Optimisation
) -> list[torch.optim.Optimizer]:
    """One optimizer, or Muon for matrices and AdamW for what else there is.

    Muon (https://kellerjordan.github.io/posts/muon) makes every direction of a matrix's step as
    long as any other, so that the few directions of large gradients do not decide alone; it keeps
    one moment where AdamW keeps two.
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


def set_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate, given as AdamW's."""
    factor = MUON_RATE if isinstance(_bare(optimizer), torch.optim.Muon) else 1.0
    for group in optimizer.param_groups:
        group["lr"] = factor * rate


def moment_bytes(optimizers: Iterable[Any]) -> int:
    """Bytes of the optimizers' moments."""
    states = chain.from_iterable(optimizer.state.values() for optimizer in optimizers)
    return sum(state[name].nbytes for state in states for name in MOMENTS if name in state)


def predicted_moment_bytes(parameters: Iterable[torch.nn.Parameter], settings: Optimisation) -> int:
    """The same before the first step."""
    moments = {torch.optim.Muon: 1, torch.optim.AdamW: 2}
    return sum(
        moments[type(optimizer)] * parameter.nbytes
        for optimizer in optimizers_for(parameters, settings)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )


def _bare(optimizer: Any) -> Any:
    """Without the wrapper of accelerate."""
    return getattr(optimizer, "optimizer", optimizer)
