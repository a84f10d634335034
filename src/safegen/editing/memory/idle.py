"""Idle parts of a pipeline leave its device during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safegen.models.families import family_of


@contextmanager
def idle_parts(pipeline: Any, keep: bool) -> Iterator[None]:
    """Keep a pipeline's autoencoder and text encoders off its device in the block.

    Args:
        pipeline: pipeline of the trained denoiser.
        keep: keep them on the CPU; otherwise they are given up, and any later use is an error.
    """
    found = [getattr(pipeline, name) for name in family_of(pipeline).idle(pipeline)]
    parts = [(part, part.device) for part in found]
    try:
        for part, _ in parts:
            part.to("cpu" if keep else "meta")
        yield
    finally:
        for part, device in parts if keep else ():
            part.to(device)
