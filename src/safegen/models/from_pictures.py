"""Sampling from a picture: noise it to a sampler's level, and run the sampler's last steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.sampling import ImageRequest, Sample, SamplingSettings, draw_batch, sampler_for
from safegen.models.texts import TextCondition


def noise_like(latents: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw standard normal noise shaped like latents (N, C, H, W), one generator each."""
    rows = [torch.randn(latents.shape[1:], generator=each) for each in generators]
    return torch.stack(rows).to(latents.device)


def last_steps(pipeline: Any, sampler: str, steps: int, strength: float) -> Any:
    """Make a sampler that runs only its last steps, as diffusers' img2img does.

    Args:
        pipeline: pipeline with the noise schedule.
        sampler: one of ``safegen.models.sampling.SAMPLERS``.
        steps: steps of the whole schedule.
        strength: share of the steps to run, in (0, 1], rounded down.

    Raises:
        SafegenError: no step is left, or the pipeline's call sets levels of its own.
    """
    left = int(steps * strength)
    if left < 1:
        raise SafegenError(
            f"at strength {strength:g} none of {steps} steps is left to draw; use more steps or a "
            "higher strength"
        )
    scheduler = sampler_for(pipeline.scheduler, sampler)
    if scheduler.config.get("use_dynamic_shifting"):
        raise _other_levels(pipeline)
    set_whole = scheduler.set_timesteps

    def set_timesteps(*args: Any, sigmas: Any = None, **kwargs: Any) -> None:
        if sigmas is not None:
            raise _other_levels(pipeline)
        set_whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[-left:]
        if hasattr(scheduler, "sigmas"):  # they have one more entry, for the end
            scheduler.sigmas = scheduler.sigmas[-left - 1 :]

    scheduler.set_timesteps = set_timesteps
    scheduler.set_timesteps(steps, device=denoiser_of(pipeline).device)
    return scheduler


def _other_levels(pipeline: Any) -> SafegenError:
    return SafegenError(
        f"{type(pipeline).__name__}: its call sets noise levels of its own, which a picture drawn "
        "from a latent does not follow; use an attack on weights, such as relearn"
    )


def noised(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Noise clean latents (N, C, H, W) to a sampler's first level, in its own scale."""
    return noised_at(scheduler, clean, noise, scheduler.timesteps[:1])


def noised_at(
    scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Noise clean latents (N, C, H, W) to one of a sampler's timesteps (1,), in its own scale."""
    times = timestep.repeat(len(clean))
    if hasattr(scheduler, "scale_noise"):  # flow matching
        latents: torch.Tensor = scheduler.scale_noise(clean, times, noise)
    else:
        latents = scheduler.add_noise(clean, noise, times)
    return latents


def first_scale(scheduler: Any) -> float:
    """Scale of a sampler's first level, at noise of variance 1; flow matching has none."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def draw_on(
    pipeline: Any,
    requests: Sequence[ImageRequest],
    settings: SamplingSettings,
    latents: torch.Tensor,
    scheduler: Any,
    texts: TextCondition | None = None,
) -> list[Sample]:
    """Draw one batch from latents (B, C, H, W) at the first noise level of ``last_steps``.

    Conditions of B texts replace the requests' prompts.
    """
    before, pipeline.scheduler = pipeline.scheduler, scheduler
    # The pipeline takes noise of variance 1 and scales it to the sampler's first level.
    dtype = next(denoiser_of(pipeline).parameters()).dtype
    started = (latents / first_scale(scheduler)).to(dtype)
    settings = replace(settings, steps=scheduler.num_inference_steps)
    try:
        return list(draw_batch(pipeline, requests, settings, started, texts))
    finally:
        pipeline.scheduler = before
