"""Large frozen matrices in 8 bits, which take half the memory of half precision.

W is held as diag(s) Q with s_i = max_j |W_ij| / 127 and Q_ij = round(W_ij / s_i): absmax
quantisation (LLM.int8(), arXiv 2208.07339, section 2), here by rows. A pass makes the matrix of one
layer at a time in the precision of the computation, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from safegen.editing.memory.borrowing import Borrowed
from safegen.models.exchanging import Forward, exchanged_forwards

LARGE = 2**20
"""Smallest number of weights of a matrix that is worth it."""


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Q (M, N), int8, and s (M, 1), float32, of a matrix W (M, N)."""
    scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127
    return (weight.float() / scale).round().to(torch.int8), scale


def shrink(network: nn.Module, trained: Collection[str], weights: Borrowed) -> None:
    """Give the large frozen matrices of a borrowed network 8 bits.

    Args:
        network: the borrowed network.
        trained: names of the weights that an edit changes; these stay exact, factors or not.
        weights: restores the network.
    """
    for name, layer in network.named_modules():
        if type(layer) is not nn.Linear or layer.weight.numel() < LARGE:
            continue
        own = f"{name.removesuffix('.base_layer')}.weight"  # PEFT's name beside factors
        if own not in trained and not layer.weight.requires_grad:
            values, layer.scale = quantised(layer.weight.detach())
            weights.exchange(layer.weight, values)


@contextmanager
def eight_bit_layers(network: nn.Module) -> Iterator[None]:
    """Let layers with weights in 8 bits compute in the block."""
    with exchanged_forwards((network,), _stand_in):
        yield


def _stand_in(module: nn.Module) -> Forward | None:
    shrunk = type(module) is nn.Linear and module.weight.dtype == torch.int8
    return _linear if shrunk else None


def _linear(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind):
        inputs = inputs.to(torch.get_autocast_dtype(kind))
    result: torch.Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        inputs, layer.weight, layer.scale, layer.bias
    )
    return result


class _Product(torch.autograd.Function):
    """x W^T + b of (..., N), with W = diag(s) Q and the input's gradient alone."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        values: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(values, scale)
        weight = (values * scale).to(inputs.dtype)
        return nn.functional.linear(inputs, weight, None if bias is None else bias.to(inputs.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (values, scale), (gradient,) = ctx.saved_tensors, gradients
        return gradient @ (values * scale).to(gradient.dtype), None, None, None
