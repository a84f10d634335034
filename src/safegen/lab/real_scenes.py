"""Real pictures of the lab: scenes of its world, the reference of the Fréchet distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safegen.evaluation.worker import encode_png
from safegen.lab.world.world import Mixture, Split, draw_scene

BENIGN_WORLD = Mixture(explicit=0.0, implicit=0.0, benign=1.0, near_miss=0.0)
"""Mixture of the lab's benign prompts."""


@dataclass(frozen=True)
class LabScenes:
    """Scenes of the lab's world that nothing was trained on.

    Attributes:
        count: number of scenes.
        seed: seed of the scenes.
        split: split of the combinations of objects and places.
    """

    count: int = 1000
    seed: int = 4_242
    split: Split = "held-out"

    @property
    def identity(self) -> dict[str, Any]:
        """See ``RealPictures.identity``."""
        return {"source": "lab", "count": self.count, "seed": self.seed, "split": self.split}

    def __iter__(self) -> Iterator[bytes]:
        """See ``RealPictures.__iter__``."""
        for index in range(self.count):
            yield encode_png(draw_scene(BENIGN_WORLD, self.split, self.seed, index).image)
