"""Weights that are moved for a while, and then put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.anatomy import denoiser_of


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
def denoiser_put_back(pipeline: Any) -> Iterator[torch.nn.Module]:
    """The pipeline's denoiser; after the block the pipeline has it again, with the same weights.

    What else stands in its place meanwhile, such as one that a defense loads anew, goes.
    """
    denoiser = denoiser_of(pipeline)
    place = "unet" if getattr(pipeline, "unet", None) is denoiser else "transformer"
    try:
        with put_back(denoiser):
            yield denoiser
    finally:
        setattr(pipeline, place, denoiser)


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
