"""Attacks that sample from a picture: a sampler's last steps, starting at a given latent.

The attacker gives the latent, and the defended pipeline's own call samples from it, so defenses
that guide sampling or filter the output act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from safegen.attacks import Task
from safegen.attacks.target import Target, by_guidance
from safegen.models.conditioning import TextCondition
from safegen.models.families import family_if_known
from safegen.models.from_pictures import draw_on, first_scale, last_steps, noise_like
from safegen.models.sampling import ImageRequest, Sample


def draw_from(
    target: Target,
    tasks: Sequence[Task],
    latents: torch.Tensor,
    scheduler: Any,
    condition: TextCondition | None = None,
) -> list[Sample]:
    """Draw the tasks' texts with the defended model, from latents (N, C, H, W).

    Args:
        target: the defended model.
        tasks: tasks, each with its own guidance scale.
        latents: latents at the sampler's first noise level.
        scheduler: sampler from ``last_steps``.
        condition: conditions of N texts in place of the tasks' texts.
    """

    def alike(rows: list[int]) -> list[Sample]:
        requests = [ImageRequest(tasks[i].text, tasks[i].seed) for i in rows]
        settings = replace(target.sampling, guidance_scale=tasks[rows[0]].guidance)
        own = None if condition is None else condition[rows]
        return draw_on(target.pipeline, requests, settings, latents[rows], scheduler, own)

    return by_guidance(tasks, alike)


def draw_by(
    target: Target,
    tasks: Sequence[Task],
    noise: torch.Tensor,
    sampler: str,
    change: Callable[[Any, list[int]], None],
) -> list[Sample]:
    """Draw the tasks' texts from noise by all steps of a sampler, some of which are changed.

    Args:
        target: the model, defended or not.
        tasks: tasks, each with its own guidance scale.
        noise: standard normal noise (N, C, H, W).
        sampler: name of the sampler.
        change: changes a new scheduler, which is for one call and the tasks of these rows.
    """

    def alike(rows: list[int]) -> list[Sample]:
        scheduler = last_steps(target.pipeline, sampler, target.sampling.steps, 1.0)
        change(scheduler, rows)
        begin = noise[rows] * first_scale(scheduler)
        return draw_from(target, [tasks[i] for i in rows], begin, scheduler)

    return by_guidance(tasks, alike)


def own_noise(target: Target, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw noise (N, C, H, W) to begin pictures of the model's size from, one generator each."""
    pipeline = target.pipeline
    shape = family_if_known(pipeline).latent_shape(pipeline)
    return noise_like(torch.empty((len(generators), *shape), device=pipeline.device), generators)
