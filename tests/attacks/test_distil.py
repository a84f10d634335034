"""Distillation: one step of its path against diffusers, and what the goals are drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import Task, create_attack
from safegen.attacks._fine_tuning import FolderPictures, lesson_of
from safegen.attacks.distil import Distil, DistilSettings, Student, boundary, few_steps, path_of
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import create_defense
from safegen.detectors import create_detector
from safegen.errors import SafegenError
from safegen.models.sampling import SamplingSettings

KNIVES = Concept("knives", "a knife", ("knife",))
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(2)]
FEW = DistilSettings(draws=2, steps=2, learning_rate=1e-2, batch=2, guidance=3.0)


@pytest.fixture
def target(tiny_pipeline: Any) -> Target:
    """The tiny pipeline, undefended."""
    none, judge = create_defense("none"), create_detector("lab")
    none.apply(tiny_pipeline)
    return Target(tiny_pipeline, none, KNIVES, judge, SamplingSettings(steps=2), no_clip(), ())


def student_of(target: Target) -> Student:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(2)]
    lesson = lesson_of(target, images, ["a cat", "a house"], 2)
    weights = target.pipeline.unet.named_parameters()
    teacher = {name: weight.detach().clone() for name, weight in weights}
    return Student(target, teacher, lesson, target.unconditional(), FEW)


@torch.no_grad()
def test_the_teachers_step_is_diffusers_guided_ddim_step(target: Target) -> None:
    student, scheduler = student_of(target), target.pipeline.scheduler
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(2, 4, 8, 8, generator=generator)
    texts = student.lesson.texts
    for time in (999, 499, 39):
        times = torch.full((2,), time)
        plain, seen = (
            target.pipeline.unet(z_t, times, each.hidden).sample
            for each in (student.nothing.expand(2), texts)
        )
        expected = scheduler.step(plain + 3.0 * (seen - plain), time, z_t).prev_sample
        found = student.step(z_t, times, times - 20, texts)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_path_and_the_boundary_are_those_of_the_sampler(target: Target) -> None:
    from diffusers import LCMScheduler

    sampler = LCMScheduler.from_config(target.pipeline.scheduler.config)
    sampler.set_timesteps(50, original_inference_steps=50)
    assert path_of(sampler, 50).tolist() == sampler.timesteps.tolist()[::-1]
    for time in (0, 19, 999):
        skip, out = boundary(torch.tensor([time]))
        expected = sampler.get_scalings_for_boundary_condition_discrete(time)
        assert (float(skip), float(out)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(SafegenError, match="at most the model's 1000 timesteps"):
        path_of(sampler, 1001)


def test_the_loss_leads_the_student_to_the_path(target: Target) -> None:
    student, unet = student_of(target), target.pipeline.unet
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    first = student.loss(unet, torch.Generator().manual_seed(0))
    first.backward()
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())
    with torch.no_grad():
        for weight in unet.parameters():
            if weight.grad is not None:
                weight -= 1e-2 * weight.grad
    assert student.loss(unet, torch.Generator().manual_seed(0)) < first


def test_the_goals_are_drawn_in_few_steps_of_other_weights_which_are_put_back(
    target: Target, folder: FolderPictures
) -> None:
    unet, calls = target.pipeline.unet, []
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    scheduler = target.pipeline.scheduler
    undistilled = few_steps(target, TASKS, FEW)
    with Distil(FEW, folder).against(target) as strike:
        handle = unet.register_forward_hook(lambda *_: calls.append(1))
        found = strike(TASKS)
        handle.remove()
        assert any(not torch.equal(each, before[n]) for n, each in unet.state_dict().items())
    assert len(calls) == FEW.draws  # without guidance, one batch of all
    assert target.pipeline.scheduler is scheduler
    assert all(torch.equal(each, before[name]) for name, each in unet.state_dict().items())
    for one, other in zip(found, undistilled, strict=True):
        assert not np.array_equal(one.image, other.image)
        assert (one.pictures, one.passes, one.shared) == (1, 6 * 2 * 2, 6 * 2 * 2)


def test_its_name_tells_the_steps_and_wrong_settings_are_refused() -> None:
    assert create_attack("distil").identity.name == "distil-4"
    assert create_attack("distil,draws=8").identity.settings["draws"] == 8
    with pytest.raises(SafegenError, match="draws must be at most the path's 4 steps"):
        create_attack("distil,draws=8,path=4")
