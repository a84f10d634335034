"""Small comparisons of lab scenes: the hardened picture is the pixelated scene."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from safegen.detectors import Detection, DetectorIdentity
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.lab.world.world import Kind, draw, sample_recipe
from safegen.report.records import (
    BenignFeatures,
    Comparison,
    Picture,
    PromptSetResult,
    RunFacts,
)
from safegen.triplets.censoring import pixelate


@dataclass(frozen=True)
class Loss:
    """A step's losses."""

    step: int
    loss: float
    redirect: float
    preserve: float


def _comparison(kind: Kind, index: int) -> Comparison:
    rng = np.random.default_rng([index, 5])
    scene = draw(sample_recipe(rng, kind, "held-out"), rng)
    names = scene.recipe.names
    unsafe = tuple(name for name in names if OBJECTS[name].unsafe)
    found = tuple(Detection(name, 0.9) for name in unsafe)
    censored = pixelate(scene.image, scene.unsafe_boxes)
    return Comparison(
        prompt_id=f"{kind}-{index}",
        prompt=scene.recipe.caption,
        seed=index,
        asked=names,
        original=Picture(scene.image, bool(unsafe), found, dict.fromkeys(names, 0.9)),
        hardened=Picture(
            censored, False, (), {name: 0.05 if name in unsafe else 0.9 for name in names}
        ),
        unsafe_asked=unsafe,
    )


def _still_unsafe(comparison: Comparison) -> Comparison:
    return replace(comparison, hardened=comparison.original)


def _lost(comparison: Comparison) -> Comparison:
    objects = dict.fromkeys(comparison.asked, 0.1)
    return replace(comparison, hardened=replace(comparison.hardened, objects=objects))


@pytest.fixture(scope="session")
def prompt_sets() -> list[PromptSetResult]:
    """Ten prompts a kind: one explicit one still unsafe, two near-misses lost."""
    made: dict[Kind, list[Comparison]] = {
        kind: [_comparison(kind, index) for index in range(10)]
        for kind in ("explicit", "implicit", "benign", "near-miss")
    }
    made["explicit"][9] = _still_unsafe(made["explicit"][9])
    made["near-miss"][0] = _lost(made["near-miss"][0])
    made["near-miss"][8] = _lost(made["near-miss"][8])
    return [
        PromptSetResult(
            kind,
            "benign" if kind in ("benign", "near-miss") else "unsafe",
            tuple(comparisons),
            f"The {kind} prompts.",
        )
        for kind, comparisons in made.items()
    ]


@pytest.fixture(scope="session")
def features() -> BenignFeatures:
    """Features of which the hardened ones fit a little worse."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(10, 6))
    original = text + 0.3 * rng.normal(size=(10, 6))
    hardened = original + 0.2 * rng.normal(size=(10, 6))
    real = text + 0.3 * rng.normal(size=(10, 6))
    return BenignFeatures(text, original, hardened, real, "tiny CLIP")


@pytest.fixture(scope="session")
def facts() -> RunFacts:
    """What was done, with every field filled."""
    return RunFacts(
        model="lab",
        patch="weapons.safetensors",
        concept="weapons",
        detector=DetectorIdentity("lab", "1.2", "d" * 64, 0.5, UNSAFE_NAMES),
        classifier=DetectorIdentity("lab-objects", "1.2", "c" * 64, 0.5),
        edit_seconds=134.4,
        total_seconds=390.0,
        settings={"edit": {"steps": 400, "mixture": {"empty": 0.5}}, "sampler": "DDIM"},
        versions={"safegen": "0.1.0"},
        seeds={"edit": 7},
        losses=[Loss(step, 0.6 / step, 0.5 / step, 0.1 / step) for step in range(1, 41)],
    )


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Opens a page in a real browser: its elements after its scripts ran, and what was logged."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    flags = f"headless no-sandbox disable-gpu {quiet} enable-logging=stderr dump-dom".split()
    command = [browser, f"--user-data-dir={tmp_path / 'user'}", *(f"--{flag}" for flag in flags)]

    def opened(page: str) -> tuple[str, str]:
        path = tmp_path / "page.html"
        path.write_text(page)
        done = subprocess.run(
            [*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout, done.stderr

    return opened
