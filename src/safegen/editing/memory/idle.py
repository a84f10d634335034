"""The parts of a pipeline that no training step needs leave its device meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NEEDED_ONCE = ("vae", "text_encoder", "text_encoder_2")
"""For the latents and for the texts' embeddings."""


@contextmanager
def idle_parts(pipeline: Any, keep: bool) -> Iterator[None]:
    """In the block, a pipeline's autoencoder and text encoders are not on its device.

    Args:
        pipeline: whose denoiser is trained.
        keep: let them wait on the processor; otherwise they are given up, and any later use of
            them is an error.
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
