"""Selective recomputation: keeps results that took many multiply-adds per number.

It intercepts each operator of a block through private interfaces of PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

WORTH_KEEPING = 1024
"""Multiply-adds per number from which ``selective`` keeps a result."""

aten = torch.ops.aten
_CONVOLUTIONS = (aten.convolution.default,)
_PRODUCTS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1}
"""Matrix products, with the index of their first factor."""
_ATTENTIONS = (
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
)


def selective(block: Callable[..., Any], *arguments: Any) -> Any:
    """Run a block; its backward pass recomputes the cheap results."""
    kept: list[Any] = []
    modes = functools.partial(_modes, kept)
    return checkpoint(block, *arguments, use_reentrant=False, context_fn=modes)


def multiply_adds(function: Any, arguments: tuple[Any, ...]) -> int:
    """Multiply-adds per number of an operator's result; 0 without products."""
    if function in _CONVOLUTIONS:
        return int(arguments[1][0].numel())
    if function in _PRODUCTS:
        return int(arguments[_PRODUCTS[function]].shape[-1])
    if function in _ATTENTIONS:
        return 2 * int(arguments[1].shape[-2])
    return 0


def _modes(kept: list[Any]) -> tuple[_Keep, _Reuse]:
    return _Keep(kept), _Reuse(kept)


class _Keep(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keep the expensive results, in order."""

    def __init__(self, kept: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        result = function(*args, **(kwargs or {}))
        if multiply_adds(function, args) >= WORTH_KEEPING:
            self._kept.append(tree_map_only(torch.Tensor, _Version, result))
        return result


class _Reuse(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Return the kept results again, from the first on each entry.

    It supports several backward passes, which the adversaries need, unlike
    ``torch.utils.checkpoint.create_selective_checkpoint_contexts``.
    """

    def __init__(self, kept: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept
        self._next = 0

    def __enter__(self) -> Any:
        self._next = 0
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        if multiply_adds(function, args) < WORTH_KEEPING:
            return function(*args, **(kwargs or {}))
        self._next += 1
        return tree_map_only(_Version, _Version.restored, self._kept[self._next - 1])


class _Version:
    """Version of a result: a later change in place would falsify the recomputation."""

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value.detach()
        self._version = value._version

    def restored(self) -> torch.Tensor:
        if self._value._version != self._version:
            raise RuntimeError("a kept activation was changed in place; use full checkpointing")
        return self._value.detach()
