"""Gradient checkpointing: less memory for activations, more computation.

The backward pass recomputes a block's activations instead of keeping them. ``full`` recomputes
the whole block. ``selective`` keeps results that took many multiply-adds per number
(convolutions, long matrix products, attention over many tokens) and recomputes only the cheap
ones, which take most of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import checkpoint

from safegen.editing.settings import GradientCheckpointing
from safegen.errors import SafegenError
from safegen.models.kernels import plain_kernels


@contextmanager
def recomputation(denoiser: Any, how: GradientCheckpointing) -> Iterator[None]:
    """Recompute activations in the denoiser's backward pass within the block.

    With plain kernels (``safegen.models.kernels``), ``selective`` recomputes whole blocks.

    Raises:
        SafegenError: the architecture has no blocks to recompute.
    """
    if how == "none":
        yield
        return
    if not getattr(denoiser, "_supports_gradient_checkpointing", False):
        raise SafegenError(
            f"{type(denoiser).__name__} has no gradient checkpointing; leave "
            "--gradient-checkpointing out"
        )
    denoiser.enable_gradient_checkpointing(_full if how == "full" else _selective())
    try:
        yield
    finally:
        denoiser.disable_gradient_checkpointing()


def _full(block: Callable[..., Any], *arguments: Any) -> Any:
    return checkpoint(block, *arguments, use_reentrant=False)


def _selective() -> Callable[..., Any]:
    if plain_kernels():
        return _full
    from safegen.editing.memory.selective import selective

    return selective
