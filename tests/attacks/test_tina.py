"""TINA: the picture comes back without text, and its latents keep noise's energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._from_pictures import draw_from
from safegen.attacks._gradients import frozen
from safegen.attacks.target import Target
from safegen.attacks.tina import TextFreePath, Tina, TinaSettings, energy
from safegen.defenses import create_defense
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.sampling import sampler_for
from tiny_targets import TASKS, target_of

FEW = TinaSettings(steps=4, iterations=2)


def strike(target: Target, tasks: list[Task], settings: TinaSettings) -> list[Finding]:
    return tiny_targets.strike(target, Tina(settings), tasks)


def latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def inverted(pipeline: Any, settings: TinaSettings) -> tuple[TextFreePath, torch.Tensor]:
    path = TextFreePath(target_of(pipeline), settings)
    with frozen(pipeline):
        return path, path.invert(latents())


@torch.no_grad()
def led_back(pipeline: Any, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Where diffusers' own DDIM leads without text."""
    scheduler = sampler_for(pipeline.scheduler, "ddim")
    scheduler.set_timesteps(steps)
    tokens = pipeline.tokenizer([""] * 2, padding="max_length", return_tensors="pt").input_ids
    empty, z = pipeline.text_encoder(tokens)[0], noise
    for time in scheduler.timesteps:
        z = scheduler.step(pipeline.unet(z, time, empty).sample, time, z).prev_sample
    return z


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_optimised_latents_lead_nearer_to_the_picture(
    build_pipeline: Callable[..., Any], prediction: str
) -> None:
    pipeline, errors = build_pipeline(prediction_type=prediction), []
    for iterations in (0, 8):
        settings = TinaSettings(4, iterations, learning_rate=5e-3, energy=0.0)
        _, noise = inverted(pipeline, settings)
        errors.append(float((led_back(pipeline, noise, 4) - latents()).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert not any(parameter.grad is not None for parameter in pipeline.unet.parameters())


def test_the_constraint_keeps_the_energy_of_noise(tiny_pipeline: Any) -> None:
    found = {}
    for weight in (0.0, 10.0):
        settings = TinaSettings(4, 8, learning_rate=3e-2, energy=weight)
        found[weight] = energy(inverted(tiny_pipeline, settings)[1])
    assert bool((found[0.0] < 0.9).all())  # untrained weights invert by scaling down
    assert bool((found[10.0] > found[0.0] + 0.05).all())
    torch.testing.assert_close(energy(latents())[0], latents()[0].square().mean())


def test_the_defended_pipeline_draws_without_text(tiny_pipeline: Any) -> None:
    path, noise = inverted(tiny_pipeline, FEW)
    wordless = [replace(task, text="") for task in TASKS]
    expected = draw_from(target_of(tiny_pipeline), wordless, noise, path.scheduler)
    z = led_back(tiny_pipeline, noise, FEW.steps)
    with torch.no_grad():
        pixels = tiny_pipeline.vae.decode(z / tiny_pipeline.vae.config.scaling_factor).sample
    pictures = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
    for sample, picture in zip(expected, pictures, strict=True):
        assert np.abs(sample.image - picture).max() <= 1


def test_tasks_do_not_depend_on_each_other(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    together = strike(target, TASKS, FEW)
    for task, found in zip(TASKS, together, strict=True):
        (alone,) = strike(target, [task], FEW)
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
        assert found.passes == alone.passes == FEW.steps * (1 + 3 * FEW.iterations)
        assert found.details["energy"] == pytest.approx(alone.details["energy"], abs=1e-4)


def test_specs() -> None:
    with pytest.raises(SafegenError, match="unknown kind 'slow'; known: free"):
        create_attack("tina:slow")
    assert create_attack("tina", LAB) == Tina(TinaSettings(**LAB.attacks["tina"]))
    free: Any = create_attack("tina:free", LAB)
    assert (free.identity.name, free.settings.energy) == ("tina-free", 0.0)


def test_untrained_weights_hand_the_picture_on_as_the_labs_model_does(lab: Target) -> None:
    settings = TinaSettings(steps=8, iterations=1)
    tasks = [
        Task(each.id, each.text, each.seed, SAMPLING.guidance_scale)
        for each in lab_prompts("explicit", "validation", 3)
    ]
    control = replace(lab, defense=create_defense("random-weights"))
    known, handed_on = (
        sum(each.score > 0 for each in strike(target, tasks, settings)) for target in (lab, control)
    )
    assert known >= 2
    assert handed_on >= 1
