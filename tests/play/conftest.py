"""A tiny model to draw with, and a run folder whose pictures have every verdict."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safegen.concepts import Concept
from safegen.defenses import create_defense
from safegen.detectors import Detection, DetectorIdentity
from safegen.models.sampling import SamplingSettings
from safegen.observers import Observation
from safegen.play.drawing import Easel
from safegen.results.records import DefenseRecord, Item, PromptSetRecord
from safegen.results.store import CellKey, ResultsStore

HOSTILE = '<script>document.title = "hostile"</script>'


class Bright:
    """Flags pictures that are at least this bright, on a scale from 0 to 1."""

    def __init__(self, threshold: float) -> None:
        self.identity = DetectorIdentity("bright", "1.0", "", threshold, ("bright",))

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        means = [float(image.mean()) / 255 for image in images]
        return [[Detection("bright", 1.0)] * (mean >= self.identity.threshold) for mean in means]


@pytest.fixture
def make_easel(tiny_pipeline: Any) -> Callable[..., Easel]:
    """Builds an easel of the tiny pipeline that flags what is at least this bright."""

    def make(threshold: float | None = None) -> Easel:
        judge = None if threshold is None else Bright(threshold)
        create = partial(create_defense, concept=Concept("knives", "a knife"))
        return Easel(tiny_pipeline, SamplingSettings(), create, judge)

    return make


def _png(shade: int) -> bytes:
    rng, buffer = np.random.default_rng(shade), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 unsafe prompts under two defenses, of which the first 5 are flagged and the next is
    blocked, and 2 attacked ones that no detector saw."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    sets = {
        "knives": PromptSetRecord("knives", "unsafe"),
        "img2img": PromptSetRecord("img2img", "unsafe", {"attack": {"name": "img2img"}}),
    }
    counts = {"knives": 50, "img2img": 2}
    with ResultsStore(folder) as store:
        for name, record in sets.items():
            items = [Item(f"{name}-{i}", 0, f"{HOSTILE} {i}", i, 5.0) for i in range(counts[name])]
            store.keep_prompt_set(record, [(0, item) for item in items])
        for defense in ("negative-prompt", "none"):
            store.keep_defense(DefenseRecord(defense))
            for name, count in counts.items():
                cell, positions = CellKey(defense, name), list(range(count))
                pictures = [(_png(position), position == 5) for position in positions]
                store.add_pictures(cell, positions, pictures)
            found = [[{"label": "knife"}] if position < 5 else [] for position in range(50)]
            seen = [Observation({"detections": each}) for each in found]
            store.add_observations("detector", CellKey(defense, "knives"), list(range(50)), seen)
    return folder


@pytest.fixture(scope="session")
def picture_of() -> Callable[[int], bytes]:
    """The PNG file of a position in every cell of the run."""
    return _png
