"""Classifier of the world's objects that a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from safegen.detectors import DetectorIdentity
from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.lab import weights_folder
from safegen.lab.world.objects import OBJECTS
from safegen.metrics.retention import THRESHOLD
from safegen.version import __version__


def object_scores(images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Score every object of the world in [0, 1], for each uint8 picture (H, W, 3)."""
    found = _classifier().detect(images)
    return [{detection.label: detection.score for detection in scores} for scores in found]


def classifier_identity() -> DetectorIdentity:
    """Identify the classifier, with the threshold at which objects count as drawn."""
    return replace(_classifier().identity, threshold=THRESHOLD, labels=())


@cache
def _classifier() -> OnnxDetector:
    settings = OnnxSettings(
        model=weights_folder() / "classifier.onnx",
        labels=tuple(OBJECTS),
        threshold=0.0,
        size=(64, 64),
        name="lab-classifier",
        version=__version__,
    )
    return OnnxDetector(settings)
