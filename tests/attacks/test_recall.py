"""RECALL: the image prompt moves to where the model sees the unsafe picture, and ends in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks.recall import Goal, ImagePrompts, Recall, RecallSettings
from safegen.attacks.target import Target
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.from_pictures import last_steps
from safegen.models.prediction import add_noise, signal_and_noise
from tiny_targets import TASKS, Never, Odd, target_of

FEW = RecallSettings(rounds=3, iterations=2, learning_rate=0.03, interval=2)


def strike(target: Target, tasks: list[Task], settings: RecallSettings) -> list[Finding]:
    return tiny_targets.strike(target, Recall(settings), tasks)


@pytest.mark.parametrize(("goal", "left"), [("prediction", 0.5), ("picture", 0.85)])
def test_what_the_model_sees_comes_nearer_to_its_goal(
    tiny_pipeline: Any, goal: Goal, left: float
) -> None:
    target = target_of(tiny_pipeline, detector=Never())
    settings = RecallSettings(goal=goal, rounds=1, iterations=30, learning_rate=0.03, injection=0.0)
    generator = torch.Generator().manual_seed(0)
    reference, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    scheduler = last_steps(tiny_pipeline, "ddim", 4, settings.strength)
    prompts = ImagePrompts(target, scheduler, TASKS[:1], reference, settings)
    time = prompts.times[:1]

    @torch.no_grad()
    def seen(clean: torch.Tensor) -> torch.Tensor:
        z_t = add_noise(clean, noise, *signal_and_noise(tiny_pipeline.scheduler, time))
        return target.clean(z_t, time, prompts.texts)

    def distance(clean: torch.Tensor) -> float:
        wanted = seen(reference) if goal == "prediction" else reference
        return float((seen(clean) - wanted).square().mean())

    generator = torch.Generator().manual_seed(1)
    start = torch.lerp(torch.randn(1, 4, 8, 8, generator=generator), reference, settings.reference)
    prompts.advance([0], 0)
    assert distance(prompts.latents) < left * distance(start)
    assert not any(parameter.grad is not None for parameter in tiny_pipeline.unet.parameters())


def test_it_draws_after_each_round_until_the_judge_finds_something(tiny_pipeline: Any) -> None:
    tasks = [replace(TASKS[0], id=f"p{i}", seed=i) for i in range(6)]
    found = strike(target_of(tiny_pipeline, detector=Odd()), tasks, FEW)
    rounds = [each.details["rounds"] for each in found]
    assert len(set(rounds)) > 1
    for each, number in zip(found, rounds, strict=True):
        assert each.score == 0.9 or number == FEW.rounds
        assert (each.image.sum() % 2 == 1) == (each.score > 0)
        assert each.pictures == number + 1
        assert each.passes == 4 * number * FEW.iterations
    never = strike(
        target_of(tiny_pipeline, detector=Never()), tasks[:1], replace(FEW, goal="picture")
    )
    assert never[0].pictures == FEW.rounds + 1
    assert never[0].passes == 3 * FEW.rounds * FEW.iterations


def test_tasks_do_not_depend_on_each_other(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline, detector=Never())
    together = strike(target, TASKS, FEW)
    for task, found in zip(TASKS, together, strict=True):
        (alone,) = strike(target, [task], FEW)
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
    (other,) = strike(target, TASKS[:1], replace(FEW, seed=1))
    assert np.abs(other.image.astype(int) - together[0].image).max() > 1


def test_specs() -> None:
    assert create_attack("recall", LAB) == Recall(RecallSettings(**LAB.attacks["recall"]))
    identity = create_attack("recall").identity
    assert (identity.name, identity.side, identity.access) == ("recall", "image", "white box")


def test_the_labs_model_draws_the_weapon_and_from_a_benign_picture_none(lab: Target) -> None:
    for kind, least, most in (("explicit", 3, 3), ("benign", 0, 0)):
        prompts = lab_prompts(kind, "validation", 3)  # type: ignore[arg-type]
        tasks = [Task(each.id, each.text, each.seed, SAMPLING.guidance_scale) for each in prompts]
        found = strike(lab, tasks, replace(FEW, rounds=2))
        assert least <= sum(each.score > 0 for each in found) <= most
