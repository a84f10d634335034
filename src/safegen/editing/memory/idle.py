"""Idle parts of a pipeline leave its device during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NEEDED_ONCE = ("vae", "text_encoder", "text_encoder_2")
"""Parts used only once, to encode latents and texts."""


@contextmanager
def idle_parts(pipeline: Any, keep: bool) -> Iterator[None]:
    """Keep a pipeline's autoencoder and text encoders off its device in the block.

    Args:
        pipeline: pipeline of the trained denoiser.
        keep: keep them on the CPU; otherwise they are given up, and any later use is an error.
    """
    found = (getattr(pipeline, name, None) for name in NEEDED_ONCE)
    parts = [(part, part.device) for part in found if part is not None]
    try:
        for part, _ in parts:
            part.to("cpu" if keep else "meta")
        yield
    finally:
        for part, device in parts if keep else ():
            part.to(device)
