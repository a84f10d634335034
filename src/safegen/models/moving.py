"""Temporary changes of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.anatomy import denoiser_of


@contextmanager
def put_back(network: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the weights by name; restore them bit for bit after the block."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    try:
        yield before
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(before[name])


@contextmanager
def exchanged(
    weights: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Give weights the values of the same names in the block, without a copy where they agree in
    type."""
    before = {name: weights[name].data for name in values}
    try:
        for name, value in values.items():
            weights[name].data = value.to(weights[name].dtype)
        yield
    finally:
        for name, value in before.items():
            weights[name].data = value


@contextmanager
def denoiser_put_back(pipeline: Any) -> Iterator[torch.nn.Module]:
    """Yield the pipeline's denoiser; restore it with the same weights after the block.

    Any replacement, such as one that a defense loads, is dropped.
    """
    denoiser = denoiser_of(pipeline)
    place = "unet" if getattr(pipeline, "unet", None) is denoiser else "transformer"
    try:
        with put_back(denoiser):
            yield denoiser
    finally:
        setattr(pipeline, place, denoiser)


@contextmanager
def none_trained(network: torch.nn.Module) -> Iterator[None]:
    """Let no weight take gradients in the block."""
    before = {name: p.requires_grad for name, p in network.named_parameters()}
    network.requires_grad_(False)
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])


@contextmanager
def all_trained(network: torch.nn.Module) -> Iterator[None]:
    """Let all weights take gradients in the block; afterwards restore flags and clear gradients."""
    before = {name: p.requires_grad for name, p in network.named_parameters()}
    network.requires_grad_(True)
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])
            parameter.grad = None
