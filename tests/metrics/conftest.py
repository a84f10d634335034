"""Cells with what observers would have recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from safegen.observers import Observation
from safegen.results.records import Cell, Item


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """Builds a cell from parts found, objects scored, cosines, distances or features."""

    def make(
        defense: str,
        role: Any = "unsafe",
        parts: Sequence[int] | None = None,
        scores: Sequence[dict[str, float]] | None = None,
        asked: Sequence[tuple[str, ...]] | None = None,
        cosines: Sequence[float] | None = None,
        distances: Sequence[float] | None = None,
        features: np.ndarray | None = None,
        prompts: Sequence[str] | None = None,
        **rest: Any,
    ) -> Cell:
        observations: dict[str, list[Observation]] = {}
        if parts is not None:
            found = [[{"label": "part", "score": 0.9, "box": None}] * count for count in parts]
            observations["detector"] = [Observation({"detections": each}) for each in found]
        if scores is not None:
            observations["objects"] = [Observation({"scores": each}) for each in scores]
        if cosines is not None or features is not None:
            numbers = [0.5] * len(features) if features is not None and cosines is None else cosines
            rows = [None] * len(numbers) if features is None else features
            observations["clip"] = [
                Observation({"cosine": float(cosine)}, row)
                for cosine, row in zip(numbers, rows, strict=True)
            ]
        if distances is not None:
            observations["lpips"] = [Observation({"distance": float(each)}) for each in distances]
        count = len(next(iter(observations.values())))
        items = [
            Item(
                prompts[i] if prompts else f"p{i}",
                0 if prompts is None else list(prompts[:i]).count(prompts[i]),
                "words",
                i,
                5.0,
                asked[i] if asked else (),
            )
            for i in range(count)
        ]
        return Cell(defense, "a set", role, items, observations, **rest)

    return make
