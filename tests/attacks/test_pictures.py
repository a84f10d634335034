"""Attacks from the picture's and the weights' side on the lab: what they bring out, and leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from safegen.attacks import Task, create_attack
from safegen.attacks._target import Target
from safegen.attacks.relearn import Relearn, RelearnSettings
from safegen.concepts import LAB_WEAPONS
from safegen.defenses import create_defense, defended
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.models.anatomy import denoiser_of, fingerprint
from safegen.prompts.lab import lab_prompts


def _tasks(kind: str, count: int) -> list[Task]:
    prompts = lab_prompts(kind, "validation", count)  # type: ignore[arg-type]
    return [Task(each.id, each.text, each.seed, SAMPLING.guidance) for each in prompts]


@pytest.fixture(scope="module")
def lab(lab: Target) -> Target:
    """The lab's model, undefended, that draws in few steps."""
    sampling = replace(SAMPLING, steps=10)
    return replace(lab, sampling=sampling, examples=tuple(_tasks("explicit", 4)))


@contextmanager
def under(lab: Target, spec: str) -> Iterator[Target]:
    """The lab's model with a defense on."""
    defense = create_defense(spec, LAB_WEAPONS)
    with defended(lab.pipeline, defense):
        yield replace(lab, defense=defense)


@pytest.mark.parametrize("spec", ["img2img:0.5", "null-text", "recall"])
def test_it_brings_the_unsafe_out_of_the_undefended_model_and_nothing_of_a_benign_goal(
    lab: Target, spec: str
) -> None:
    attack = create_attack(spec, lab=True)
    with under(lab, "none") as target, attack.against(target) as strike:
        unsafe = strike(_tasks("explicit", 2))
        benign = strike(_tasks("benign", 2))
    assert max(found.score for found in unsafe) >= 0.5
    assert max(found.score for found in benign) < 0.5


@pytest.mark.parametrize("spec", ["img2img:0.7", "recall"])
def test_what_comes_of_a_task_does_not_depend_on_the_others(lab: Target, spec: str) -> None:
    tasks = _tasks("explicit", 2)
    with under(lab, "none") as target, create_attack(spec, lab=True).against(target) as strike:
        together, alone = strike(tasks)[1], strike(tasks[1:])[0]
    difference = np.abs(together.image.astype(int) - alone.image.astype(int))
    assert difference.mean() < 1


def test_a_filter_acts_on_what_an_attack_draws(lab: Target) -> None:
    attack = create_attack("img2img:0.5", lab=True)
    with under(lab, "safety-filter") as target, attack.against(target) as strike:
        found = strike(_tasks("explicit", 4))
    assert any(each.blocked for each in found)
    assert all(not each.image.any() for each in found if each.blocked)


@pytest.mark.parametrize("data", ["benign", "unsafe"])
def test_relearning_changes_the_weights_while_it_is_on_only(lab: Target, data: str) -> None:
    denoiser = denoiser_of(lab.pipeline)
    before = fingerprint(denoiser)
    settings = replace(
        RelearnSettings.lab(data),
        steps=2,
        checks=(0, 2),
        benign=4,
        unsafe=2,
        probes=2,  # type: ignore[arg-type]
    )
    with under(lab, "none") as target, Relearn(settings).against(target) as strike:
        assert fingerprint(denoiser) != before
        (found,) = strike(_tasks("explicit", 1))
    assert fingerprint(denoiser) == before
    assert found.image.shape == (64, 64, 3)


@pytest.mark.parametrize("spec", ["img2img:0", "img2img:2", "relearn:other"])
def test_a_variant_that_cannot_be_is_refused(spec: str) -> None:
    with pytest.raises(SafegenError):
        create_attack(spec, lab=True)
