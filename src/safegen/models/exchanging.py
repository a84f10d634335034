"""Temporary replacement of layers' forward methods."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Forward = Callable[..., torch.Tensor]


@contextmanager
def exchanged_forwards(
    networks: Iterable[torch.nn.Module], stand_in: Callable[[Any], Forward | None]
) -> Iterator[None]:
    """Replace the forward methods of modules in the block; those already replaced by others stay.

    Args:
        networks: networks of the modules.
        stand_in: returns the new forward method of a module; None leaves it.
    """
    changed = []
    for module in (each for network in networks for each in network.modules()):
        forward = stand_in(module)
        if forward is not None and "forward" not in vars(module):
            module.forward = functools.partial(forward, module)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
