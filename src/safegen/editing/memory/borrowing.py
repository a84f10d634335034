"""A network that a training may change and that is restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_TREES = ("_modules", "_parameters", "_buffers")


class Borrowed:
    """Snapshot of a network: layers, weights, buffers and attributes.

    The snapshot copies nothing, so a training first gives its weights other storage
    (``parameter.data = …``).

    Args:
        network: network to be changed.
        keep: keep the frozen weights that ``convert_frozen`` and ``exchange`` replace, on the CPU;
            otherwise they stay in the new precision.
    """

    def __init__(self, network: nn.Module, keep: bool = True) -> None:
        self._modules = [(module, _attributes(module)) for module in network.modules()]
        self._weights = [_Weight(parameter) for parameter in network.parameters()]
        self._keep = keep

    def convert_frozen(self, dtype: torch.dtype) -> None:
        """Convert the weights without gradients, but for those in 8 bits, to another precision."""
        for weight in self._weights:
            parameter = weight.parameter
            frozen = parameter.is_floating_point() and not parameter.requires_grad
            if frozen and parameter.dtype != dtype:
                weight.exchange(parameter.data.to(dtype), self._keep)

    def exchange(self, parameter: torch.Tensor, values: torch.Tensor) -> None:
        """Give a weight without gradients other values, of any type."""
        weight = next(each for each in self._weights if each.parameter is parameter)
        weight.exchange(values, self._keep)

    def put_back(self) -> None:
        """Restore the network."""
        for module, attributes in self._modules:
            vars(module).clear()
            vars(module).update(attributes)
        for weight in self._weights:
            weight.put_back()


@contextmanager
def borrowed(network: nn.Module, keep: bool = True) -> Iterator[Borrowed]:
    """Lend a network to the block; however the block ends, restore it bit for bit."""
    before = Borrowed(network, keep)
    try:
        yield before
    finally:
        before.put_back()


class _Weight:
    """A parameter's values, gradient and ``requires_grad``."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self._values: torch.Tensor | None = parameter.data
        self._device = parameter.device
        self._trained, self._gradient = parameter.requires_grad, parameter.grad
        parameter.grad = None

    def exchange(self, values: torch.Tensor, keep: bool) -> None:
        self._values = self.parameter.data.cpu() if keep else None
        self.parameter.data = values

    def put_back(self) -> None:
        self.parameter.grad = None  # a gradient of another precision could not stay
        if self._values is not None:
            self.parameter.data = self._values.to(self._device)
            self.parameter.grad = self._gradient
        if self.parameter.is_floating_point():  # no weight in 8 bits takes a gradient
            self.parameter.requires_grad_(self._trained)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's attributes, with copies of its tables of parts."""
    found = vars(module)
    return {name: dict(value) if name in _TREES else value for name, value in found.items()}
