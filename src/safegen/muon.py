"""Muon, which gives every direction of a matrix's step the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration in the post named below."""
ITERATIONS = 5
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon) with Nesterov momentum.

    ``torch.optim.Muon`` iterates in bfloat16 everywhere, which most CPUs emulate some fifteen times
    slower than this one, which iterates in single precision there.

    Args:
        params: matrices, or groups of them.
        lr: learning rate; a step has min(m, n) singular values of about
            ``lr * sqrt(max(1, m / n))``.
        momentum: decay of the mean of the gradients, in [0, 1).
        weight_decay: share of a matrix that is taken off in a step, per ``lr``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all matrices that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        step = orthogonalised(gradient.lerp(mean, group["momentum"]))
        rows, columns = parameter.shape
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(step.to(parameter), alpha=group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of a matrix (M, N) near 1, in [0.5, 1.5]."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    precision = torch.float32 if matrix.device.type == "cpu" else torch.bfloat16
    x = (wide.float() / wide.float().norm().clamp(min=EPSILON)).to(precision)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: torch.Tensor = x if wide is matrix else x.T
    return found
