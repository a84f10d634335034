"""Weights that are moved for a while, and then put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def put_back(network: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """The weights by name as they are; after the block they are so again, bit for bit."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    try:
        yield before
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(before[name])


@contextmanager
def all_trained(network: torch.nn.Module) -> Iterator[None]:
    """In the block all weights take gradients; after it those that did, and none has one."""
    before = {name: p.requires_grad for name, p in network.named_parameters()}
    network.requires_grad_(True)
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])
            parameter.grad = None
