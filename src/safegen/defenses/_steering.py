"""Steering of a UNet's predictions by hooks, in batches of both guidance halves."""

from __future__ import annotations

from typing import Any

import torch

from safegen.errors import SafegenError


def check_steerable(pipeline: Any, defense: str) -> None:
    """Refuse a pipeline that does not run a UNet on both guidance halves at once.

    Raises:
        SafegenError: it is another kind.
    """
    if not hasattr(type(pipeline), "num_timesteps") or not hasattr(pipeline, "unet"):
        raise SafegenError(
            f"{defense}: works on UNets in batches of both guidance halves, which "
            f"{type(pipeline).__name__} does not have; use a Stable Diffusion pipeline"
        )


def with_sample(output: Any, sample: torch.Tensor) -> Any:
    """Put another prediction in the place of a denoiser's, in a tuple or an object as it was."""
    if isinstance(output, tuple):
        return (sample, *output[1:])
    return type(output)(sample=sample)
