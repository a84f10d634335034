"""The parts of a pipeline that no training step needs leave its device meanwhile."""

from __future__ import annotations

from typing import Any

NEEDED_ONCE = ("vae", "text_encoder", "text_encoder_2")
"""For the latents and for the texts' embeddings."""


class IdleParts:
    """The autoencoder and the text encoders of a pipeline while its denoiser is trained.

    Args:
        pipeline: whose parts leave their device.
        keep: let them wait on the processor; otherwise they are given up, and any later use of
            them is an error.
    """

    def __init__(self, pipeline: Any, keep: bool) -> None:
        found = (getattr(pipeline, name, None) for name in NEEDED_ONCE)
        self._parts = [(part, part.device) for part in found if part is not None]
        self._keep = keep
        for part, _ in self._parts:
            part.to("cpu" if keep else "meta")

    def put_back(self) -> None:
        """The parts to where they were, if they were kept."""
        if self._keep:
            for part, device in self._parts:
                part.to(device)
