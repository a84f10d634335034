"""Low-rank factors beside a network's projections, on and off: LoRA without any other package."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.seeds import sample_seed

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of an attention that get factors, as in diffusers' example of a LoRA."""


class LowRank:
    """Factors of some layers: h = W x + B A x (arXiv 2106.09685, equation 3, with alpha = r).

    Attributes:
        pairs: A (r, in), Gaussian, and B (out, r), zero, by the name of the weight they change.
    """

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
        self._on = True

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All factors."""
        return [each for pair in self.pairs.values() for each in pair]

    def changes(self) -> dict[str, torch.Tensor]:
        """Compute what the factors add to the weights, B A, by name."""
        return {name: (b @ a).detach() for name, (a, b) in self.pairs.items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave the factors out in the block."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def beside(self, name: str) -> Any:
        """Make the forward hook of a layer."""

        def hook(_layer: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            a, b = self.pairs[name]
            return output + args[0] @ a.T @ b.T if self._on else output

        return hook


@contextmanager
def low_rank(
    network: torch.nn.Module, rank: int, seed: int, among: Collection[str] | None = None
) -> Iterator[LowRank]:
    """Put factors beside the projections of a network's attentions in the block.

    Args:
        network: the network; its own weights stay.
        rank: rank of the factors.
        seed: seed of A.
        among: names of the weights that may get some (default: all of the network).

    Raises:
        SafegenError: the network has no such projection.
    """
    generator = torch.Generator().manual_seed(sample_seed("lora", base=seed))
    ends = tuple(f".{each}" for each in PROJECTIONS)
    factors, handles = LowRank(), []
    for name, layer in network.named_modules():
        if not (isinstance(layer, torch.nn.Linear) and name.endswith(ends)):
            continue
        if among is not None and f"{name}.weight" not in among:
            continue
        a = torch.randn(rank, layer.in_features, generator=generator) / rank
        b = torch.zeros(layer.out_features, rank)
        pair = [torch.nn.Parameter(each.to(layer.weight)) for each in (a, b)]
        factors.pairs[f"{name}.weight"] = (pair[0], pair[1])
        handles.append(layer.register_forward_hook(factors.beside(f"{name}.weight")))
    if not handles:
        raise SafegenError(f"{type(network).__name__}: has no attention that a LoRA changes")
    try:
        yield factors
    finally:
        for handle in handles:
            handle.remove()
