"""Sampling from a picture: a sampler's last steps, starting at a given latent.

The attacker gives the latent, and the defended pipeline's own call samples from it, so defenses
that guide sampling or filter the output act.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from safegen.attacks import Task
from safegen.attacks.target import Target, by_guidance
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.sampling import ImageRequest, Sample, draw_batch, sampler_for


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
        SafegenError: no step is left.
    """
    left = int(steps * strength)
    if left < 1:
        raise SafegenError(
            f"at strength {strength:g} none of {steps} steps is left to draw; use more steps or a "
            "higher strength"
        )
    scheduler = sampler_for(pipeline.scheduler, sampler)
    set_whole = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        set_whole(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[-left:]
        if hasattr(scheduler, "sigmas"):  # they have one more entry, for the end
            scheduler.sigmas = scheduler.sigmas[-left - 1 :]

    scheduler.set_timesteps = set_timesteps
    scheduler.set_timesteps(steps, device=denoiser_of(pipeline).device)
    return scheduler


def noised(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Noise clean latents (N, C, H, W) to a sampler's first level, in its own scale."""
    times = scheduler.timesteps[:1].repeat(len(clean))
    if hasattr(scheduler, "scale_noise"):  # flow matching
        latents: torch.Tensor = scheduler.scale_noise(clean, times, noise)
    else:
        latents = scheduler.add_noise(clean, noise, times)
    return latents


def draw_from(
    target: Target, tasks: Sequence[Task], latents: torch.Tensor, scheduler: Any
) -> list[Sample]:
    """Draw the tasks' texts with the defended model, from latents (N, C, H, W).

    Args:
        target: the defended model.
        tasks: tasks, each with its own guidance scale.
        latents: latents at the sampler's first noise level.
        scheduler: sampler from ``last_steps``.
    """
    pipeline, before = target.pipeline, target.pipeline.scheduler
    # The pipeline takes noise of variance 1 and scales it to the sampler's first level.
    started = (latents / scheduler.init_noise_sigma).to(denoiser_of(pipeline).dtype)

    def alike(rows: list[int]) -> Iterator[Sample]:
        requests = [ImageRequest(tasks[i].text, tasks[i].seed) for i in rows]
        settings = replace(
            target.sampling,
            steps=scheduler.num_inference_steps,
            guidance_scale=tasks[rows[0]].guidance,
        )
        return draw_batch(pipeline, requests, settings, started[rows])

    pipeline.scheduler = scheduler
    try:
        return by_guidance(tasks, alike)
    finally:
        pipeline.scheduler = before
