"""The lab's object classifier: which of the world's objects a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from safegen.lab import weights_folder
from safegen.lab.objects import OBJECTS

THRESHOLD = 0.5


def object_scores(images: Sequence[np.ndarray], batch: int = 64) -> list[dict[str, float]]:
    """For each uint8 picture (64, 64, 3) a score in [0, 1] for every object of the world."""
    session = _session(weights_folder() / "classifier.onnx")
    results = []
    for start in range(0, len(images), batch):
        pixels = np.stack(images[start : start + batch]).transpose(0, 3, 1, 2) / np.float32(255)
        (scores,) = session.run(["scores"], {"images": pixels.astype(np.float32)})
        results += [dict(zip(OBJECTS, map(float, row), strict=True)) for row in scores]
    return results


def shows_all(scores: dict[str, float], asked: Sequence[str]) -> bool:
    """Whether every object asked for is in the picture."""
    return all(scores[name] >= THRESHOLD for name in asked)


@cache
def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
