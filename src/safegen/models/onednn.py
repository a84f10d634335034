"""Linear layers through oneDNN, for sampling on a CPU.

PyTorch multiplies float32 matrices with MKL, which on CPUs of other makers than its own is slower
than oneDNN, PyTorch's library for convolutions (``benchmarks/onednn_layers.py``). Results agree up
to rounding.
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
    """Run linear layers and gated units through oneDNN in the block where possible.

    That needs float32 on a CPU without gradients, and no plain kernels
    (``safegen.models.kernels``).
    """
    used = not plain_kernels() and _is_available()
    with exchanged_forwards(networks if used else (), _forward_of):
        yield


def _forward_of(module: torch.nn.Module) -> Forward | None:
    """Return a module's oneDNN forward; None without one."""
    from diffusers.models.activations import GEGLU

    if type(module) is torch.nn.Linear:
        return _linear
    return _gated if type(module) is GEGLU else None


def _linear(module: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    if not _suits(inputs, module.weight):
        return torch.nn.Linear.forward(module, inputs)
    return _multiply(inputs, module.weight, module.bias, "none")


def _gated(module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """x GELU(y) (arXiv 2002.05202), where one linear layer gives both halves x and y."""
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
    """Apply a linear layer and a following operation."""
    # "none" means exact GELU, as in diffusers, not the tanh approximation.
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs, weight, bias, then, [], "none"
    )
    return result


@functools.cache
def _is_available() -> bool:
    """Tell whether this PyTorch has the operators for compiled models; they are private, so try
    them."""
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
