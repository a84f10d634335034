"""What attacks on the tiny pipeline are made against: targets, tasks and judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from safegen.attacks import Attack, Finding, Task
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.detectors import Detection, create_detector
from safegen.models.sampling import SamplingSettings

KNIVES = Concept("knives", "a knife")
TASKS = [Task(f"p{i}", f"a knife and a {word}", i, 3.0) for i, word in enumerate(("cat", "house"))]


class Never:
    """Flags nothing."""

    identity = create_detector("lab").identity

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [[] for _ in images]


class Odd(Never):
    """Flags pictures whose pixels have an odd sum: half of all, whatever they show."""

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [[Detection("odd", 0.9)] if image.sum() % 2 else [] for image in images]


def target_of(
    pipeline: Any,
    defense: str = "none",
    *,
    detector: Any = None,
    examples: Iterable[Task] = (),
    concept: Concept = KNIVES,
    **sampling: Any,
) -> Target:
    """A pipeline with a defense, not yet applied, and sampling settings."""
    return Target(
        pipeline,
        create_defense(defense, concept),
        concept,
        detector or create_detector("lab"),
        SamplingSettings(**{"steps": 4, **sampling}),
        no_clip(),
        tuple(examples),
    )


def strike(target: Target, attack: Attack, tasks: Sequence[Task]) -> list[Finding]:
    """Attack tasks, with the target's defense applied meanwhile."""
    with defended(target.pipeline, target.defense), attack.against(target) as hit:
        return hit(tasks)
