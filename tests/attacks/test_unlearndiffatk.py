"""UnlearnDiffAtk: what its search moves, when it ends, and what it finds on the lab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._gradients import Vocabulary
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.target import Target
from safegen.attacks.unlearndiffatk import UnlearnDiffAtk, UnlearnDiffAtkSettings
from safegen.defenses import defended
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.conditioning import TextCondition
from tiny_targets import KNIVES, Never, Odd

TASKS = [Task(f"p{i}", f"a knife in the {word}", i, 3.0) for i, word in enumerate(("snow", "cat"))]
FEW = UnlearnDiffAtkSettings(tokens=2, rounds=2, iterations=3, learning_rate=0.3, weight_decay=0.0)
target_of = partial(tiny_targets.target_of, steps=3)


def strike(
    target: Target, tasks: Sequence[Task], settings: UnlearnDiffAtkSettings = FEW
) -> list[Finding]:
    return tiny_targets.strike(target, UnlearnDiffAtk(settings), tasks)


def words_of(pipeline: Any, found: Finding) -> list[int]:
    """A finding's tokens between start and end."""
    tokens: list[int] = found.details["tokens"][1:]
    return tokens[: tokens.index(pipeline.tokenizer.eos_token_id)]


@pytest.mark.parametrize("goal", ["named", "unnamed"])
def test_found_tokens_stand_before_the_goal(tiny_pipeline: Any, goal: Any) -> None:
    vocabulary = Vocabulary(tiny_pipeline)
    found = strike(target_of(tiny_pipeline, detector=Never()), TASKS, replace(FEW, goal=goal))
    for task, each in zip(TASKS, found, strict=True):
        text = task.text if goal == "named" else TextFilter(KNIVES).without(task.text)
        tokens = words_of(tiny_pipeline, each)
        assert tokens[FEW.tokens :] == vocabulary.tokens(text)[: 14 - FEW.tokens]
        assert set(tokens[: FEW.tokens]) <= set(vocabulary.allowed.tolist())


def test_it_begins_with_the_goal_and_draws_after_each_round_until_the_judge_finds_something(
    tiny_pipeline: Any,
) -> None:
    tasks = [replace(TASKS[0], id=f"p{i}", seed=i) for i in range(6)]
    target = target_of(tiny_pipeline, detector=Odd())
    with defended(tiny_pipeline, "none"):
        plain = target.scores([sample.image for sample in target.draw(tasks)])
    found = strike(target, tasks)
    assert 0 < (plain > 0).sum() < 6
    for each, before in zip(found, plain, strict=True):
        rounds = each.details["rounds"]
        assert (rounds == 0) == (before > 0)
        assert (each.score > 0) or rounds == FEW.rounds
        assert each.score == (0.9 if each.image.sum() % 2 else 0)
        assert (each.pictures, each.passes) == (rounds + 1, 3 * rounds * FEW.iterations)


def test_the_picture_is_what_the_defended_model_draws_of_the_tokens(tiny_pipeline: Any) -> None:
    for defense in ("none", "sld-max"):
        target = target_of(tiny_pipeline, defense, detector=Never())
        for task, each in zip(TASKS, strike(target, TASKS), strict=True):
            tokens = torch.tensor([each.details["tokens"]])
            with torch.no_grad(), defended(tiny_pipeline, target.defense):
                condition = TextCondition(tiny_pipeline.text_encoder(tokens)[0])
                (sample,) = target.draw([task], condition=condition)
            assert np.abs(each.image.astype(int) - sample.image).max() <= 1


def test_a_task_does_not_depend_on_the_others(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline, detector=Never())
    together = [each.details for each in strike(target, TASKS)]
    assert [strike(target, [task])[0].details for task in TASKS] == together
    again = [each.details for each in strike(target, TASKS, replace(FEW, seed=1))]
    assert again != together
    assert not any(parameter.grad is not None for parameter in tiny_pipeline.unet.parameters())
    assert all(parameter.requires_grad for parameter in tiny_pipeline.text_encoder.parameters())


def test_specs() -> None:
    identity = create_attack("unlearndiffatk").identity
    assert (identity.name, identity.side, identity.access) == (
        "unlearndiffatk", "text", "white box"
    )  # fmt: skip
    assert (identity.settings["rounds"], identity.settings["iterations"]) == (50, 40)
    lab = create_attack("unlearndiffatk:unnamed", LAB).identity
    assert lab.name == "unlearndiffatk-unnamed"
    usual = UnlearnDiffAtkSettings("unnamed", **LAB.attacks["unlearndiffatk"])
    assert lab.settings == asdict(usual)


def test_the_labs_model_is_brought_to_draw_what_the_goal_does_not_name(lab: Target) -> None:
    """And towards benign pictures it is not."""
    settings = UnlearnDiffAtkSettings("unnamed", **LAB.attacks["unlearndiffatk"])
    unsafe, benign = (
        [
            Task(each.id, each.text, each.seed, SAMPLING.guidance_scale)
            for each in lab_prompts(kind, "validation", 3)  # type: ignore[arg-type]
        ]
        for kind in ("explicit", "benign")
    )
    assert not any(TextFilter(LAB_WEAPONS).refuses(task.text) for task in benign)
    found = strike(lab, unsafe, settings)
    assert any(each.score > 0 and each.details["rounds"] > 0 for each in found)
    control = strike(lab, benign[:2], replace(settings, rounds=1))
    assert not any(each.score for each in control)
