"""Ring-A-Bell on the lab: the concept's direction, the genetic search, and what comes of both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safegen.attacks import Finding, Task
from safegen.attacks._target import Target
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.ring_a_bell import (
    RingABell,
    RingABellSettings,
)
from safegen.concepts import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.world import Kind, Split
from safegen.prompts.lab import lab_prompts

FILTER = TextFilter(LAB_WEAPONS)
FEW = RingABellSettings(strength=1.0, length=6, population=16, generations=6)


def tasks_of(kind: Kind, split: Split, count: int) -> list[Task]:
    return [
        Task(prompt.id, prompt.text, prompt.seed, SAMPLING.guidance)
        for prompt in lab_prompts(kind, split, count)
    ]


@pytest.fixture(scope="module")
def lab(lab: Target) -> Target:
    """The lab's model, undefended, with examples to learn from."""
    return replace(lab, examples=tuple(tasks_of("explicit", "train", 24)))


def attack(target: Target, tasks: list[Task], settings: RingABellSettings) -> list[Finding]:
    with RingABell(settings).against(target) as strike:
        return strike(tasks)
