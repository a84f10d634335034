"""Linear layers through oneDNN while pictures are drawn on a processor.

For float32, PyTorch multiplies matrices with MKL, which on processors of other makers than its own
is slower than oneDNN, PyTorch's library for convolutions (``benchmarks/onednn_layers.py``). The
results are the same but for rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.exchanging import Forward, exchanged_forwards
from safegen.models.kernels import plain_kernels


@contextmanager
def onednn_layers(networks: Iterable[torch.nn.Module]) -> Iterator[None]:
    """In the block, linear layers and gated units go through oneDNN where they can.

    They can in float32 on a processor, and where no gradient is asked for, unless
    ``safegen.models.kernels`` says not to.
    """
    used = not plain_kernels() and _is_available()
    with exchanged_forwards(networks if used else (), _forward_of):
        yield


def _forward_of(module: torch.nn.Module) -> Forward | None:
    """What stands in for a module's own forward; None where nothing does."""
    from diffusers.models.activations import GEGLU

    if type(module) is torch.nn.Linear:
        return _linear
    return _gated if type(module) is GEGLU else None


def _linear(module: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    if not _suits(inputs, module.weight):
        return torch.nn.Linear.forward(module, inputs)
    return _multiply(inputs, module.weight, module.bias, "none")


def _gated(module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """x GELU(y) (arXiv 2002.05202), whose halves x and y are those of one linear layer."""
    projection = module.proj
    plain = type(projection) is torch.nn.Linear and not _has_hooks(projection)
    if not plain or not _suits(inputs, projection.weight):
        result: torch.Tensor = type(module).forward(module, inputs)
        return result
    value, gate = projection.weight.chunk(2)
    value_bias, gate_bias = (None, None) if projection.bias is None else projection.bias.chunk(2)
    opened = _multiply(inputs, gate, gate_bias, "gelu")
    together: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        inputs, opened, value, value_bias, "mul"
    )
    return together


def _has_hooks(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _suits(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and inputs.device.type == weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.dim() > 1
        and inputs.numel() > 0
    )


def _multiply(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, then: str
) -> torch.Tensor:
    """A linear layer, and what follows it."""
    # "none" computes GELU exactly, as diffusers does, and not by its tanh.
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs, weight, bias, then, [], "none"
    )
    return result


@functools.cache
def _is_available() -> bool:
    """Whether this PyTorch has the operators that it makes for compiled models: they are not
    public, so they are tried."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ones = torch.ones(2, 2)
    try:
        torch.ops.mkldnn._linear_pointwise.binary(
            ones, _multiply(ones, ones, None, "gelu"), ones, None, "mul"
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True
