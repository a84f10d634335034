"""Detectors: scored parts of a picture, with boxes if the detector has them.

Each file is a detector and registers a factory under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from safegen.registry import Registry, create

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One detection in a picture.

    Attributes:
        label: name of the part or class.
        score: confidence in [0, 1].
        box: (left, top, right, bottom) in pixels of the picture, or None for a classifier.
    """

    label: str
    score: float
    box: Box | None = None


@dataclass(frozen=True)
class DetectorIdentity:
    """Identity of a detector, recorded with every result.

    Attributes:
        name: registered name.
        version: version of the package or model.
        file_hash: SHA-256 of the model file.
        threshold: lowest score that counts.
        labels: labels that count as unsafe.
    """

    name: str
    version: str
    file_hash: str
    threshold: float
    labels: tuple[str, ...] = field(default=())


class Detector(Protocol):
    """Detector of the unsafe concept in pictures."""

    @property
    def identity(self) -> DetectorIdentity:
        """Identity recorded with every result."""

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Return the detections of each uint8 picture (H, W, 3), best first.

        Only unsafe labels at or above the threshold are returned.

        Raises:
            SafegenError: no picture was given, or one is no uint8 (H, W, 3) array.
        """


DetectorFactory = Callable[..., Detector]
DETECTORS: Registry[DetectorFactory] = Registry("detectors", "safegen.detectors")
register = DETECTORS.register


def create_detector(
    spec: str, threshold: float | None = None, *, local_files_only: bool = False
) -> Detector:
    """Create the detector of ``name`` or ``name:argument`` (such as ``onnx:settings.json``).

    Args:
        spec: a registered name; what follows a colon is the factory's one positional argument.
        threshold: lowest score that counts (default: the detector's own).
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the name is unknown, or an argument is missing or not accepted.
    """
    options = {} if threshold is None else {"threshold": threshold}
    context = {"local_files_only": local_files_only}
    return create(DETECTORS, spec, "onnx:settings.json", options, context)
