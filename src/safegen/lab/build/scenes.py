"""Training scenes of the lab's models, drawn once and kept as arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from safegen.files import write_atomically
from safegen.lab.world.objects import OBJECTS
from safegen.lab.world.world import Mixture, Split, draw_scene


@dataclass
class SceneArrays:
    """Arrays of scenes.

    Attributes:
        images: uint8 (N, 64, 64, 3).
        captions: N texts.
        labels: float32 (N, objects), 1 where the object is present, in the order of ``OBJECTS``.
        boxes: boxes per scene, one per object shown, in the order of ``names``.
        names: objects shown, per scene.
    """

    images: np.ndarray
    captions: list[str]
    labels: np.ndarray
    boxes: list[list[list[float]]]
    names: list[list[str]]

    def __len__(self) -> int:
        return len(self.captions)

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """Return images as float32 (B, 3, 64, 64) in [-1, 1]."""
        batch = torch.from_numpy(self.images[indices.numpy()])
        return batch.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def load_or_draw(
    folder: Path, mixture: Mixture, split: Split, count: int, seed: int
) -> SceneArrays:
    """Load the scenes of one seeded sequence from ``folder``, or draw and keep them."""
    image_file, truth_file = folder / "images.npy", folder / "truth.json"
    if not truth_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [draw_scene(mixture, split, seed, index) for index in range(count)]
        np.save(image_file, np.stack([scene.image for scene in scenes]))
        truth = {
            "captions": [scene.recipe.caption for scene in scenes],
            "names": [list(scene.recipe.names) for scene in scenes],
            "boxes": [[list(box) for box in scene.boxes] for scene in scenes],
        }
        write_atomically(truth_file, json.dumps(truth))
    truth = json.loads(truth_file.read_text())
    order = list(OBJECTS)
    labels = np.zeros((len(truth["captions"]), len(order)), dtype=np.float32)
    for row, names in enumerate(truth["names"]):
        labels[row, [order.index(name) for name in names]] = 1.0
    images = np.load(image_file, mmap_mode="r")
    return SceneArrays(images, truth["captions"], labels, truth["boxes"], truth["names"])
