"""Diffusion completion: the original begins, the defended model ends, as diffusers' own does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import create_attack
from safegen.attacks._draws import task_generator
from safegen.attacks.completion import Completion, CompletionSettings
from safegen.errors import SafegenError
from safegen.models.sampling import SAMPLERS, sampler_for
from tiny_targets import TASKS, strike, target_of

HALF = Completion(CompletionSettings(0.5))


def whole(pipeline: Any, sampler: str, steps: int = 4) -> np.ndarray:
    """The pictures of diffusers' own call, from the attack's noise."""
    pipeline.scheduler = sampler_for(pipeline.scheduler, sampler)
    begun = [torch.randn(4, 8, 8, generator=task_generator(task, 0)) for task in TASKS]
    images: np.ndarray = pipeline(
        [task.text for task in TASKS], num_inference_steps=steps, guidance_scale=3.0,
        latents=torch.stack(begun), output_type="np",
    ).images  # fmt: skip
    return images


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_without_a_defense_the_picture_is_ended_as_it_was_begun(
    build_pipeline: Callable[..., Any], sampler: str
) -> None:
    assert sampler in SAMPLERS
    found = strike(target_of(build_pipeline(), sampler=sampler), HALF, TASKS)
    for each, picture in zip(found, whole(build_pipeline(), sampler), strict=True):
        assert np.abs(each.image - 255.0 * picture).max() <= 1
        assert each.details == {"reference": 0.0, "begun": 2}
        assert (each.pictures, each.passes) == (1, 0)


def test_the_defense_acts_in_the_end_alone(
    build_pipeline: Callable[..., Any],
) -> None:
    pictures = []
    for share in (0.25, 0.75):
        target = target_of(build_pipeline(), "negative-prompt")
        found = strike(target, Completion(CompletionSettings(share)), TASKS)
        pictures.append([each.image.astype(float) for each in found])
    plain = 255.0 * whole(build_pipeline(), "ddim")
    early, late = (np.abs(np.stack(each) - plain).mean() for each in pictures)
    assert early > late > 0


def test_tasks_do_not_depend_on_each_other(
    tiny_pipeline: Any,
) -> None:
    target = target_of(tiny_pipeline)
    mixed = [TASKS[0], replace(TASKS[1], guidance=5.0)]
    for task, found in zip(mixed, strike(target, HALF, mixed), strict=True):
        (alone,) = strike(target, HALF, [task])
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1


def test_what_does_not_fit_is_refused(
    tiny_pipeline: Any,
) -> None:
    with pytest.raises(SafegenError, match=r"a share of 0\.1 of 4 steps is none"):
        strike(target_of(tiny_pipeline), create_attack("completion:0.1"), TASKS)
    with pytest.raises(SafegenError, match="completion: share must be a finite number"):
        create_attack("completion:1")
    assert create_attack("completion") == Completion(CompletionSettings())
    assert create_attack("completion:0.5,seed=3").identity.name == "completion-0.5"
