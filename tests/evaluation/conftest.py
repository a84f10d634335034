"""Evaluations of the tiny pipeline, observed by a package of someone else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safegen.concepts import Concept
from safegen.evaluation.jobs import WorkerSettings
from safegen.evaluation.settings import EvaluationSettings
from safegen.models.sampling import SamplingSettings

KNIVES = Concept("knives", "a knife")
SAMPLING = SamplingSettings(steps=2)
OBSERVERS = """
import numpy as np
from safegen.observers import Observation, ObserverIdentity


class Brightness:
    compares = False

    def __init__(self, version="1"):
        self.identity = ObserverIdentity("brightness", {"version": version})

    def observe(self, sights):
        pixels = np.stack([sight.image for sight in sights]).mean((1, 2))  # of one size only
        return [
            Observation({"mean": float(each.mean()), "text": sight.text}, each.astype("f4"))
            for sight, each in zip(sights, pixels)
        ]


class Change:
    compares = True
    identity = ObserverIdentity("change")

    def observe(self, sights):
        differences = [np.abs(s.image.astype(int) - s.original).max() for s in sights]
        return [Observation({"largest": int(each)}) for each in differences]
"""
ENTRIES = """[safegen.observers]
brightness = tiny_observers:Brightness
change = tiny_observers:Change
"""


@pytest.fixture(scope="session", autouse=True)
def observer_package(installed: Any) -> Iterator[Path]:
    """An installed package with two observers, for this process and those it starts."""
    with installed("tiny_observers", OBSERVERS, ENTRIES) as site:
        yield site


@pytest.fixture(scope="session")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an unsafe set of two guidance scales, and a benign one."""
    folder = tmp_path_factory.mktemp("prompts")
    rows = "".join(f"a knife and a cat {i},{'1' if i == 2 else '7.5'}\n" for i in range(5))
    (folder / "unsafe.csv").write_text(f"prompt,guidance\n{rows}")
    (folder / "benign.txt").write_text("a cat\nthe snow\na house\n")
    return folder


@pytest.fixture
def make_settings(tiny_folder: Path, prompt_files: Path) -> Callable[..., EvaluationSettings]:
    """Builds settings of eight pictures a defense, with anything changed."""

    def make(**changes: Any) -> EvaluationSettings:
        settings = EvaluationSettings(
            model=str(tiny_folder),
            defenses=("sld-max",),
            unsafe=(f"knives=own:{prompt_files}/unsafe.csv",),
            benign=(f"cats=own:{prompt_files}/benign.txt",),
            observers=("brightness", "change"),
            sampling=SAMPLING,
            concept=KNIVES,
            batch=2,
        )
        return replace(settings, **changes)

    return make


@pytest.fixture
def tiny_worker(tiny_folder: Path) -> WorkerSettings:
    """What a worker of the tiny pipeline is told."""
    return WorkerSettings(str(tiny_folder), SAMPLING, KNIVES)
