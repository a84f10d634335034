"""Layers that keep less for the backward pass than PyTorch's, with the same results.

PyTorch keeps a convolution's input even if its weight is frozen, though only the weight's
gradient needs it. A gated unit, x GELU(y), keeps GELU(y) beside the x and y it is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.exchanging import Forward, exchanged_forwards
from safegen.models.kernels import plain_kernels

SMALL = 100_000_000
"""Smaller denoisers (in weights) stay as they are: their layers are so quick that Python calls
and recomputed GELUs would cost more time than the memory is worth."""


@contextmanager
def lean_layers(denoiser: torch.nn.Module) -> Iterator[None]:
    """Make the gated units and frozen convolutions of a denoiser above ``SMALL`` keep less in the
    block, unless ``safegen.models.kernels`` says not to."""
    small = sum(parameter.numel() for parameter in denoiser.parameters()) < SMALL
    with exchanged_forwards(() if small or plain_kernels() else (denoiser,), _lean_forward):
        yield


def _lean_forward(module: torch.nn.Module) -> Forward | None:
    """Return a module's lean forward; None if its own already keeps the minimum."""
    from diffusers.models.activations import GEGLU

    if type(module) is GEGLU:
        return _gate
    if type(module) is torch.nn.Conv2d and module.padding_mode == "zeros":
        return None if isinstance(module.padding, str) else _convolve
    return None


def _gate(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _Gated.apply(module.proj(hidden))  # type: ignore[no-untyped-call]
    return result


def _convolve(module: torch.nn.Conv2d, pixels: torch.Tensor) -> torch.Tensor:
    if any(parameter.requires_grad for parameter in module.parameters()):
        return torch.nn.Conv2d.forward(module, pixels)
    shape = module.stride, module.padding, module.dilation, module.groups
    result: torch.Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        pixels, module.weight, module.bias, *shape
    )
    return result


class _Gated(torch.autograd.Function):
    """x GELU(y) of (..., 2 N), the halves being x and y (arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, projected: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(projected)
        value, gate = projected.chunk(2, dim=-1)
        return value * torch.nn.functional.gelu(gate)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (projected,), (gradient,) = ctx.saved_tensors, gradients
        value, gate = projected.chunk(2, dim=-1)
        found = torch.empty_like(projected)
        of_value, of_gate = found.chunk(2, dim=-1)
        torch.mul(gradient, torch.nn.functional.gelu(gate), out=of_value)
        of_gate.copy_(torch.ops.aten.gelu_backward(gradient * value, gate))
        return found


class _Convolution(torch.autograd.Function):
    """Convolution whose backward pass computes the input's gradient alone."""

    @staticmethod
    def forward(
        ctx: Any,
        pixels: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *shape: Any,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.dtype, ctx.shape = pixels.shape, pixels.dtype, shape
        return torch.nn.functional.conv2d(pixels, weight, bias, *shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        stride, padding, dilation, groups = ctx.shape
        found = torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(ctx.size),  # only its size matters
            weight.to(gradient.dtype),  # as autocast had it
            None, stride, padding, dilation, False, (0, 0), groups, (True, False, False),
        )[0]  # fmt: skip
        return found.to(ctx.dtype), *[None] * (2 + len(ctx.shape))
