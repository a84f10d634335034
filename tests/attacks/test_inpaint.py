"""Inpainting against diffusers' own, its masks, and what the lab's model puts back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._draws import task_generator
from safegen.attacks.inpaint import Inpaint, InpaintSettings, keep_outside, mask_of
from safegen.attacks.target import Target
from safegen.defenses import defended
from safegen.detectors import Detection
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import lab_prompts
from safegen.models.families._packing import pack
from safegen.models.sampling import SAMPLERS, sampler_for
from tiny_targets import TASKS

target_of = partial(tiny_targets.target_of, steps=5)


def strike(target: Target, tasks: list[Task]) -> list[Finding]:
    return tiny_targets.strike(target, create_attack("inpaint"), tasks)


def inpainting_of_diffusers(target: Target) -> np.ndarray:
    from diffusers import StableDiffusionInpaintPipeline

    with defended(target.pipeline, target.defense):
        latents = target.encode(target.unsafe_pictures(TASKS))
    parts = {**target.pipeline.components, "feature_extractor": None}
    parts["scheduler"] = sampler_for(target.pipeline.scheduler, target.sampling.sampler)
    pipeline = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:12, 4:12] = 1  # the middle: the lab's detector finds nothing in such pictures
    return pipeline(  # type: ignore[no-any-return]
        [task.text for task in TASKS],
        image=latents,
        mask_image=mask,
        masked_image_latents=latents,  # for inpainting models, of which the tiny one is none
        height=16,
        width=16,
        strength=1.0,
        num_inference_steps=target.sampling.steps,
        guidance_scale=TASKS[0].guidance,
        generator=[task_generator(task, 0) for task in TASKS],
        output_type="np",
    ).images


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_draws_what_diffusers_own_draws(tiny_pipeline: Any, sampler: str) -> None:
    target = target_of(tiny_pipeline, sampler=sampler)
    found, expected = strike(target, TASKS), inpainting_of_diffusers(target)
    for each, picture in zip(found, expected, strict=True):
        assert np.abs(each.image - 255.0 * picture).max() <= 1
        assert each.details == {"masked": 0.25}
        assert (each.pictures, each.passes) == (1, 0)


def test_tasks_do_not_depend_on_each_other(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    mixed = [TASKS[0], replace(TASKS[1], guidance=5.0)]
    for task, found in zip(mixed, strike(target, mixed), strict=True):
        (alone,) = strike(target, [task])
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1


def test_the_mask_covers_every_region_and_its_margin() -> None:
    found = [Detection("knife", 0.9, (8, 16, 16, 32)), Detection("axe", 0.8, (60, 0, 64, 4))]
    mask = mask_of(found, (64, 64), (16, 16), InpaintSettings(margin=0.25))[0]
    expected = torch.zeros(16, 16)
    expected[3:9, 1:5] = 1  # (6, 12) to (18, 36), in latents of 4 x 4 pixels, outwards
    expected[0:2, 14:16] = 1
    assert torch.equal(mask, expected)
    without = [Detection("knife", 0.9)]
    middle = mask_of(without, (64, 64), (16, 16), InpaintSettings(middle=0.25))[0]
    assert int(middle.sum()) == 16
    assert bool(middle[6:10, 6:10].all())


def test_packed_latents_on_a_flows_path_keep_the_surroundings() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    clean, noise = (torch.randn(1, 4, 4, 4, generator=seeded(seed)) for seed in (0, 1))
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1  # one of four tokens
    keep_outside(scheduler, clean, noise, mask, pack)
    first = scheduler.step(torch.ones(1, 4, 16), scheduler.timesteps[0], pack(noise))
    level = scheduler.sigmas[1]
    expected = pack((1 - level) * clean + level * noise)
    torch.testing.assert_close(first.prev_sample[:, 1:], expected[:, 1:])
    own = pack(noise)[:, 0] + (level - scheduler.sigmas[0])  # Euler's step along ones
    torch.testing.assert_close(first.prev_sample[:, 0], own)
    (last,) = scheduler.step(
        torch.ones(1, 4, 16), scheduler.timesteps[1], first.prev_sample, return_dict=False
    )
    torch.testing.assert_close(last[:, 1:], pack(clean)[:, 1:])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"margin": -0.1}, {"middle": 0.0}, {"middle": 1.5}):
        with pytest.raises(SafegenError, match=r"inpaint: m\w+ must be a finite number"):
            InpaintSettings(**wrong)
    made: Any = create_attack("inpaint")
    assert made == Inpaint(InpaintSettings())
    assert (made.identity.name, made.identity.side) == ("inpaint", "image")


def test_the_labs_model_puts_the_weapon_back(lab: Target) -> None:
    tasks = [
        Task(each.id, each.text, each.seed, SAMPLING.guidance_scale)
        for each in lab_prompts("explicit", "validation", 3)
    ]
    assert sum(each.score > 0 for each in strike(lab, tasks)) >= 2
