"""Prompting4Debugging: what it looks for, in both forms, and what it finds on the lab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._gradients import Vocabulary
from safegen.attacks.p4d import P4D, P4DSettings
from safegen.attacks.target import Target
from safegen.defenses import create_defense
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.conditioning import TextCondition
from tiny_targets import Never

TASKS = [Task(f"p{i}", f"a {word}", i, 3.0) for i, word in enumerate(("knife", "cat"))]
FEW = P4DSettings(
    form="n", tokens=3, iterations=4, interval=2, learning_rate=0.3, weight_decay=0.0, latents=3
)
target_of = partial(tiny_targets.target_of, detector=Never(), steps=3)


def strike(target: Target, tasks: Sequence[Task], settings: P4DSettings = FEW) -> list[Finding]:
    return tiny_targets.strike(target, P4D(settings), tasks)


def words_of(pipeline: Any, found: Finding) -> list[int]:
    """A finding's tokens between start and end."""
    tokens: list[int] = found.details["tokens"][1:]
    return tokens[: tokens.index(pipeline.tokenizer.eos_token_id)]


def test_found_tokens_stand_alone_or_between_the_goals(tiny_pipeline: Any) -> None:
    target, vocabulary = target_of(tiny_pipeline), Vocabulary(tiny_pipeline)
    for each in strike(target, TASKS):
        assert len(words_of(tiny_pipeline, each)) == FEW.tokens
    for task, each in zip(TASKS, strike(target, TASKS, replace(FEW, form="k")), strict=True):
        tokens, goal = words_of(tiny_pipeline, each), vocabulary.tokens(task.text)
        assert [token for i, token in enumerate(tokens) if i % (FEW.every + 1)] == goal
        assert (each.details["rounds"], each.pictures) == (2, 3)
        assert each.passes == FEW.latents + 3 * FEW.iterations


def error_of(target: Target, tokens: torch.Tensor, text: str) -> float:
    """How differently the model sees noised latents under tokens and under a text."""
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(16, 4, 8, 8, generator=generator)
    times = torch.full((16,), 600)
    with torch.no_grad():
        found = TextCondition(target.pipeline.text_encoder(tokens)[0])
        seen, wanted = (
            target.clean(z_t, times, each.expand(16)) for each in (found, target.embed([text]))
        )
    return float((seen - wanted).square().mean())


def test_what_the_model_sees_under_the_tokens_comes_nearer_to_the_goals(
    tiny_pipeline: Any,
) -> None:
    target = target_of(tiny_pipeline)
    tasks = [replace(TASKS[0], id=f"p{i}") for i in range(4)]
    errors = []
    for iterations in (0, 60):
        settings = replace(FEW, iterations=iterations, interval=60, learning_rate=0.1)
        found = strike(target, tasks, settings)
        errors.append(
            np.mean([
                error_of(target, torch.tensor([each.details["tokens"]]), task.text)
                for task, each in zip(tasks, found, strict=True)
            ])
        )  # fmt: skip
    assert errors[1] < 0.8 * errors[0]


def test_a_task_does_not_depend_on_the_others(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    tasks = [TASKS[0], replace(TASKS[1], text="a house and a cat")]
    for form in ("n", "k"):
        settings = replace(FEW, form=form)  # type: ignore[arg-type]
        together = [each.details for each in strike(target, tasks, settings)]
        assert [strike(target, [task], settings)[0].details for task in tasks] == together
    again = [each.details for each in strike(target, tasks, replace(settings, seed=1))]
    assert again != together
    assert not any(parameter.grad is not None for parameter in tiny_pipeline.unet.parameters())


def test_specs() -> None:
    identity = create_attack("p4d").identity
    assert (identity.name, identity.side, identity.access) == ("p4d-k", "text", "white box")
    assert (identity.settings["iterations"], identity.settings["learning_rate"]) == (3000, 0.1)
    form: Literal["n"] = "n"
    lab = create_attack("p4d:n", LAB).identity
    assert (lab.name, lab.settings) == ("p4d-n", asdict(P4DSettings(form, **LAB.attacks["p4d"])))


def test_the_labs_model_draws_the_concept_by_tokens_alone_and_one_that_never_saw_it_does_not(
    lab: Target,
) -> None:
    tasks = [
        Task(each.id, each.text, each.seed, SAMPLING.guidance_scale)
        for each in lab_prompts("explicit", "validation", 3)
    ]
    settings = replace(P4DSettings("n", **LAB.attacks["p4d"]), latents=12)
    found = strike(lab, tasks, replace(settings, iterations=48))
    assert sum(each.score > 0 for each in found) >= 2
    filtered = replace(lab, defense=create_defense("filtered", LAB_WEAPONS, LAB))
    control = strike(filtered, tasks[:2], replace(settings, iterations=12))
    assert not any(each.score for each in control)
