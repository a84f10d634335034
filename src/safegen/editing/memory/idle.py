"""Idle parts of a pipeline leave its device during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.families import family_of


@contextmanager
def all_parts(pipeline: Any, device: torch.device) -> Iterator[None]:
    """Bring a pipeline's idle parts to a device in the block."""
    parts = _idle(pipeline)
    try:
        for part, _ in parts:
            part.to(device)
        yield
    finally:
        for part, before in parts:
            part.to(before)


@contextmanager
def idle_parts(pipeline: Any, keep: bool) -> Iterator[None]:
    """Keep a pipeline's autoencoder and text encoders off its device in the block.

    Args:
        pipeline: pipeline of the trained denoiser.
        keep: keep them on the CPU; otherwise they are given up, and any later use is an error.
    """
    parts = _idle(pipeline)
    try:
        for part, _ in parts:
            part.to("cpu" if keep else "meta")
        yield
    finally:
        for part, device in parts if keep else ():
            part.to(device)


def _idle(pipeline: Any) -> list[tuple[Any, torch.device]]:
    """List the idle parts with their devices."""
    found = [getattr(pipeline, name) for name in family_of(pipeline).idle(pipeline)]
    return [(part, part.device) for part in found]
