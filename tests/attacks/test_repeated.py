"""Repetition over seeds: what is drawn anew, what is learned once, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import tiny_targets
from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, create_attack
from safegen.attacks.plain import Plain
from safegen.attacks.repeated import Repeated, with_seed
from safegen.attacks.target import Target
from safegen.defenses import defended
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from tiny_targets import TASKS

IMAGE = np.zeros((4, 4, 3), np.uint8)


@dataclass(frozen=True)
class Lucky(Attack):
    """Succeeds in a round of each task, and keeps a diary."""

    rounds: dict[str, int]
    diary: list[Any] = field(default_factory=list)

    @property
    def identity(self) -> AttackIdentity:
        return AttackIdentity("lucky", "weights", "white box", {"luck": True})

    @contextmanager
    def against(self, _: Target) -> Iterator[Strike]:
        self.diary.append("learned")
        yield self.strike

    def strike(self, tasks: Sequence[Task]) -> list[Finding]:
        self.diary.append([task.id for task in tasks])
        return [
            Finding(
                IMAGE,
                blocked=False,
                score=float(task.seed == with_seed(task0(task), self.rounds[task.id]).seed),
                pictures=2,
                passes=10,
                details={"luck": task.seed},
                shared=7,
            )
            for task in tasks
        ]


def task0(task: Task) -> Task:
    return next(each for each in TASKS if each.id == task.id)


target_of = partial(tiny_targets.target_of, steps=2)


def test_it_stops_at_the_first_success_and_counts_all_it_spent() -> None:
    lucky = Lucky({"p0": 0, "p1": 2})
    with Repeated(lucky, 5).against(target_of(None)) as strike:
        first, second = strike(TASKS)
    assert lucky.diary == ["learned", ["p0", "p1"], ["p1"], ["p1"]]
    assert (first.score, first.pictures, first.passes) == (1, 2, 10)
    assert (second.score, second.pictures, second.passes) == (1, 6, 10 + 2 * (10 - 7))
    assert first.details == {"luck": 0, "seed": 0, "seeds": 1}
    seed = with_seed(TASKS[1], 2).seed
    assert second.details == {"luck": seed, "seed": seed, "seeds": 3}


def test_it_gives_up_after_all_seeds_which_are_the_tasks_own() -> None:
    lucky = Lucky({"p0": 9, "p1": 9})
    with Repeated(lucky, 3).against(target_of(None)) as strike:
        found = strike(TASKS)
    assert [(each.score, each.details["seeds"]) for each in found] == [(0, 3), (0, 3)]
    seeds = {with_seed(task, number).seed for task in TASKS for number in range(3)}
    assert len(seeds) == 6
    assert with_seed(TASKS[0], 0) == TASKS[0]


def test_every_seed_is_another_picture(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    with defended(tiny_pipeline, target.defense):
        with Plain().against(target) as strike:
            once = strike(TASKS)
            again = strike([with_seed(task, 1) for task in TASKS])
        with Repeated(Plain(), 2).against(replace(target, detector=Nothing())) as strike:
            twice = strike(TASKS)
    assert [each.text for each in once] == [task.text for task in TASKS]
    for first, second, last in zip(once, again, twice, strict=True):
        assert not np.array_equal(first.image, second.image)
        assert np.array_equal(second.image, last.image)
        assert (last.pictures, last.passes) == (2, 0)


class Nothing:
    """Detector that finds nothing."""

    identity: Any = None

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Any]]:
        return [[] for _ in images]


def test_its_spec_holds_the_attacks() -> None:
    made: Any = create_attack("repeated:10:img2img:0.5")
    assert made.identity.name == "img2img-0.5-x10"
    assert (made.identity.side, made.identity.access) == ("image", "black box")
    assert made.identity.settings["seeds"] == 10
    assert made.identity.settings["attack"]["settings"]["strength"] == 0.5
    usual: Any = create_attack("repeated:2:null-text", LAB)
    assert usual.attack == create_attack("null-text", LAB)
    for wrong in ("repeated:img2img:0.5", "repeated:10", "repeated:x:plain"):
        with pytest.raises(SafegenError, match="write repeated:10:plain"):
            create_attack(wrong)
    with pytest.raises(SafegenError, match="seeds must be at least 1, not 0"):
        create_attack("repeated:0:plain")
    with pytest.raises(SafegenError, match="Did you mean 'plain'"):
        create_attack("repeated:2:plian")
