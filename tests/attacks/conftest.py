"""The lab's model as attacks see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safegen.attacks.target import Target
from safegen.defenses import create_defense
from safegen.detectors import create_detector
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.models.loading import load_pipeline
from safegen.observers.clip import load_clip


@pytest.fixture(scope="session")
def lab() -> Target:
    """The lab's model, undefended, in fewer steps than it usually draws in."""
    return Target(
        pipeline=load_pipeline("lab"),
        defense=create_defense("none"),
        concept=LAB_WEAPONS,
        detector=create_detector("lab"),
        sampling=replace(SAMPLING, steps=10),
        clip=load_clip("lab"),
        examples=(),
    )
