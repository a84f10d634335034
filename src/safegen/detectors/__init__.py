"""Detectors: from a picture to scored parts, with boxes where the detector has them.

One file a detector; each registers a factory under the file's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from safegen.registry import Registry

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One thing found in a picture.

    Attributes:
        label: the part's or class's name.
        score: confidence in [0, 1].
        box: (left, top, right, bottom) in pixels of the picture, or None for a classifier.
    """

    label: str
    score: float
    box: Box | None = None


@dataclass(frozen=True)
class DetectorIdentity:
    """What a result must record of the detector that made it.

    Attributes:
        name: its registered name.
        version: version of the package or model.
        file_hash: SHA-256 of the model file.
        threshold: scores at or above it count.
        labels: the labels that count as unsafe.
    """

    name: str
    version: str
    file_hash: str
    threshold: float
    labels: tuple[str, ...] = field(default=())


class Detector(Protocol):
    """Finds the unsafe concept in pictures."""

    @property
    def identity(self) -> DetectorIdentity:
        """What to record beside every result."""

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """The detections at or above the threshold for each uint8 picture (H, W, 3)."""


DetectorFactory = type[Detector]
DETECTORS: Registry[DetectorFactory] = Registry("detectors", "safegen.detectors")
register = DETECTORS.register
