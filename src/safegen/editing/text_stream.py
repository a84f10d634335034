"""The text's own stream in joint attention, which an edit of the image side is to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from safegen.editing.adapters import Trained, as_original
from safegen.models.anatomy import attention_layers
from safegen.models.tracing import trace

TEXT_SIDE = "text side of joint attention"


class TextStream:
    """What the text's tokens bring into each joint attention (MM-DiT, arXiv 2403.03206).

    There text tokens attend to image keys and values. So an edit of these also moves what later
    blocks know of the text, which no weight of the edit multiplies.

    Args:
        denoiser: the edited network; without joint attention it has no such stream.
        trained: its trained weights.
        weight: weight of the stream's change in a loss; 0 follows nothing.
    """

    def __init__(self, denoiser: nn.Module, trained: Trained, weight: float) -> None:
        names = _entrances(denoiser) if weight else []
        self._layers = [denoiser.get_submodule(name) for name in names]
        self._trained = trained
        self._weight = weight

    @contextmanager
    def followed(self) -> Iterator[list[torch.Tensor]]:
        """Record what enters each attention but the first (N, L, D) in one pass in the block.

        No edit moves what enters the first.
        """
        seen: list[torch.Tensor] = []

        def record(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0])

        with ExitStack() as stack:
            for layer in self._layers:
                stack.callback(layer.register_forward_pre_hook(record).remove)
            yield seen

    @torch.no_grad()
    def of_original(self, ask: Callable[[], Any]) -> list[torch.Tensor]:
        """Records of the frozen original, in the pass that ``ask`` makes; none without a stream."""
        if not self._layers:
            return []
        with as_original(self._trained), self.followed() as seen:
            ask()
        return seen

    def losses(
        self, seen: Sequence[torch.Tensor], original: Sequence[torch.Tensor], texts: torch.Tensor
    ) -> torch.Tensor:
        """Weighted ``change`` under each text, shaped like ``texts``; 0 without a stream."""
        if not self._layers:
            return torch.zeros(texts.shape, device=texts.device)
        return self._weight * change(seen, original).view(texts.shape)


def change(stream: Sequence[torch.Tensor], original: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over blocks of |c_i - c_i*|^2 / |c_i*|^2 per text (N,).

    c_i is what the text's tokens bring into the attention of block i, c_i* the same of the frozen
    original: features matched as in distillation (FitNets, arXiv 1412.6550, eq. 3), each as a share
    of its own size.

    Args:
        stream: records (N, L, D) of ``TextStream.followed``.
        original: those of the original, on the same input.
    """
    shares = [
        (after.float() - before.float()).pow(2).flatten(1).mean(dim=1)
        / before.float().pow(2).flatten(1).mean(dim=1)
        for after, before in zip(stream, original, strict=True)
    ]
    return torch.stack(shares).mean(dim=0)


def _entrances(denoiser: nn.Module) -> list[str]:
    """Name the text side's first layer of each joint attention but the first."""
    order = trace(denoiser).order
    first: dict[str, str] = {}
    layers = [each for each in attention_layers(denoiser) if each.reason == TEXT_SIDE]
    for layer in sorted(layers, key=lambda each: order.index(f"{each.attention}.{each.name}")):
        first.setdefault(layer.attention, f"{layer.attention}.{layer.name}")
    return list(first.values())[1:]
