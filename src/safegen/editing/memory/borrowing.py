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
        keep: keep the frozen weights that ``convert_frozen`` converts, on the CPU; otherwise
            they stay in the new precision.
    """

    def __init__(self, network: nn.Module, keep: bool = True) -> None:
        self._modules = [(module, _attributes(module)) for module in network.modules()]
        self._weights = [_Weight(parameter) for parameter in network.parameters()]
        self._keep = keep

    def convert_frozen(self, dtype: torch.dtype) -> None:
        """Convert the weights without gradients to another precision."""
        for weight in self._weights:
            if not weight.parameter.requires_grad and weight.parameter.dtype != dtype:
                weight.convert(dtype, self._keep)

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

    def convert(self, dtype: torch.dtype, keep: bool) -> None:
        self._values = self.parameter.data.cpu() if keep else None
        self.parameter.data = self.parameter.data.to(dtype)

    def put_back(self) -> None:
        self.parameter.grad = None  # a gradient of another precision could not stay
        if self._values is not None:
            self.parameter.data = self._values.to(self._device)
            self.parameter.grad = self._gradient
        self.parameter.requires_grad_(self._trained)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's attributes, with copies of its tables of parts."""
    found = vars(module)
    return {name: dict(value) if name in _TREES else value for name, value in found.items()}
