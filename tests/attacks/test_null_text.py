"""Null-text inversion: what leads back, under which defenses, and what it does on the lab."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks.null_text import Inversion, NullText, NullTextSettings
from safegen.attacks.target import Target
from safegen.defenses import defended
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.conditioning import TextCondition, embed_prompts
from safegen.models.sampling import sampler_for
from tiny_targets import TASKS, target_of

FEW = NullTextSettings(steps=4, iterations=2)


def strike(target: Target, tasks: list[Task], settings: NullTextSettings) -> list[Finding]:
    return tiny_targets.strike(target, NullText(settings), tasks)


def latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def decoded(pipeline: Any, z: torch.Tensor) -> np.ndarray:
    pixels = pipeline.vae.decode(z / pipeline.vae.config.scaling_factor).sample
    picture: np.ndarray = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
    return picture


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_noise_leads_back_to_the_picture_without_text(
    build_pipeline: Callable[..., Any], prediction: str
) -> None:
    pipeline = build_pipeline(prediction_type=prediction)
    target = target_of(pipeline)
    wordless = [replace(task, text="") for task in TASKS]
    settings = NullTextSettings(steps=5, refinements=30)
    inversion = Inversion(target, wordless, settings)
    pivot = inversion.invert(latents())
    samples = inversion.draw(pivot[-1], [inversion.null] * 5)
    for sample, expected in zip(samples, decoded(pipeline, latents()), strict=True):
        assert np.abs(sample.image - expected).max() <= 1
    coarse = Inversion(target, wordless, replace(settings, refinements=0)).invert(latents())
    assert (coarse[-1] - pivot[-1]).abs().max() > 1e-3


@torch.no_grad()
def drawn_by_hand(pipeline: Any, noise: torch.Tensor, embeddings: list[torch.Tensor]) -> np.ndarray:
    scheduler = sampler_for(pipeline.scheduler, "ddim")
    scheduler.set_timesteps(len(embeddings))
    text = embed_prompts(pipeline, [task.text for task in TASKS])
    z = noise
    for time, embedding in zip(scheduler.timesteps, embeddings, strict=True):
        u, c = (pipeline.unet(z, time, each).sample for each in (embedding, text))
        z = scheduler.step(u + TASKS[0].guidance * (c - u), time, z).prev_sample
    return decoded(pipeline, z)


@pytest.mark.parametrize("defense", ["none", "negative-prompt"])
def test_each_step_has_its_own_unconditional_embedding(tiny_pipeline: Any, defense: str) -> None:
    target = target_of(tiny_pipeline, defense)
    generator = torch.Generator().manual_seed(1)
    with defended(tiny_pipeline, target.defense):
        inversion = Inversion(target, TASKS, FEW)
        embeddings = [torch.randn(2, 16, 16, generator=generator) for _ in range(FEW.steps)]
        samples = inversion.draw(latents(), list(map(TextCondition, embeddings)))
    expected = drawn_by_hand(tiny_pipeline, latents(), embeddings)
    for sample, picture in zip(samples, expected, strict=True):
        assert np.abs(sample.image - picture).max() <= 1


def test_guidance_acts_when_it_draws(tiny_pipeline: Any) -> None:
    pictures = {}
    for defense in ("none", "sld-max"):
        target = target_of(tiny_pipeline, defense)
        with warnings.catch_warnings(), defended(tiny_pipeline, target.defense):
            warnings.simplefilter("error")  # its hook would say that it does nothing
            inversion = Inversion(target, TASKS, FEW)
            (sample, _) = inversion.draw(latents(), [inversion.null] * FEW.steps)
            pictures[defense] = sample.image
    assert np.abs(pictures["none"].astype(int) - pictures["sld-max"]).max() > 1


def test_optimised_embeddings_lead_nearer_to_the_picture(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    errors = []
    for iterations in (0, 8):
        settings = NullTextSettings(steps=6, iterations=iterations, learning_rate=0.05)
        inversion = Inversion(target, TASKS, settings)
        pivot = inversion.invert(latents())
        embeddings, spent = inversion.optimise(pivot)
        assert spent == [6 * iterations] * 2
        samples = inversion.draw(pivot[-1], embeddings)
        pictures = np.stack([sample.image for sample in samples])
        errors.append(np.abs(pictures - decoded(tiny_pipeline, latents())).mean())
    assert errors[1] < 0.95 * errors[0]
    assert not any(parameter.grad is not None for parameter in tiny_pipeline.unet.parameters())


def test_a_step_that_is_near_enough_costs_one_iteration(tiny_pipeline: Any) -> None:
    inversion = Inversion(target_of(tiny_pipeline), TASKS, replace(FEW, tolerance=1e3))
    _, spent = inversion.optimise(inversion.invert(latents()))
    assert spent == [FEW.steps] * 2


def test_tasks_do_not_depend_on_each_other(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    mixed = [TASKS[0], replace(TASKS[1], guidance=5.0)]
    together = strike(target, mixed, FEW)
    for task, found in zip(mixed, together, strict=True):
        (alone,) = strike(target, [task], FEW)
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
        assert found.passes == alone.passes == FEW.steps * 3 + 3 * FEW.steps * FEW.iterations
        assert found.details["noise"] == pytest.approx(alone.details["noise"], abs=1e-4)


def test_what_it_cannot_do_is_refused(build_pipeline: Callable[..., Any]) -> None:
    pipeline = build_pipeline()
    with pytest.raises(SafegenError, match="guidance above 1"):
        strike(target_of(pipeline), [replace(TASKS[0], guidance=1.0)], FEW)
    assert create_attack("null-text", LAB) == NullText(NullTextSettings(**LAB.attacks["null-text"]))
    released = create_attack("null-text:released", LAB)
    assert released == NullText(NullTextSettings(), "null-text-released")
    assert released.identity.name == "null-text-released"
    fewer = NullTextSettings(**{**LAB.attacks["null-text"], "iterations": 2})
    assert create_attack("null-text,iterations=2", LAB) == NullText(fewer)
    with pytest.raises(SafegenError, match="unknown budget 'large'; known: released"):
        create_attack("null-text:large", LAB)
    identity = create_attack("null-text").identity
    assert (identity.name, identity.side, identity.access) == ("null-text", "image", "white box")


def test_the_labs_model_draws_the_weapon_and_from_a_benign_picture_none(lab: Target) -> None:
    settings = NullTextSettings(steps=10, iterations=2)
    for kind, least, most in (("explicit", 2, 3), ("benign", 0, 0)):
        prompts = lab_prompts(kind, "validation", 3)  # type: ignore[arg-type]
        tasks = [Task(each.id, each.text, each.seed, SAMPLING.guidance_scale) for each in prompts]
        found = strike(lab, tasks, settings)
        assert least <= sum(each.score > 0 for each in found) <= most
