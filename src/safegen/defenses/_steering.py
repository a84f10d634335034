"""Steering of a denoiser's predictions by hooks, in batches of both guidance halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of


def check_steerable(pipeline: Any, defense: str, transformers: Sequence[str] = ()) -> None:
    """Refuse a pipeline that does not run a known denoiser on both guidance halves at once.

    Args:
        pipeline: the pipeline.
        defense: name of the defense.
        transformers: class names of denoisers that the defense knows beside UNets.

    Raises:
        SafegenError: it is another kind.
    """
    known = hasattr(pipeline, "unet") or type(denoiser_of(pipeline)).__name__ in transformers
    if not known or not hasattr(type(pipeline), "num_timesteps"):
        kinds = " and ".join(["UNets", *transformers])
        raise SafegenError(
            f"{defense}: works on {kinds} in batches of both guidance halves, which "
            f"{type(pipeline).__name__} does not have; use a Stable Diffusion pipeline"
        )


def with_sample(output: Any, sample: torch.Tensor) -> Any:
    """Put another prediction in the place of a denoiser's, in a tuple or an object as it was."""
    if isinstance(output, tuple):
        return (sample, *output[1:])
    return type(output)(sample=sample)
