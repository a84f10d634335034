"""Attacks that sample from a picture: a sampler's last steps, starting at a given latent.

The attacker gives the latent, and the defended pipeline's own call samples from it, so defenses
that guide sampling or filter the output act.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from safegen.attacks import Task
from safegen.attacks.target import Target, by_guidance
from safegen.models.from_pictures import draw_on
from safegen.models.sampling import ImageRequest, Sample


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

    def alike(rows: list[int]) -> list[Sample]:
        requests = [ImageRequest(tasks[i].text, tasks[i].seed) for i in rows]
        settings = replace(target.sampling, guidance_scale=tasks[rows[0]].guidance)
        return draw_on(target.pipeline, requests, settings, latents[rows], scheduler)

    return by_guidance(tasks, alike)
