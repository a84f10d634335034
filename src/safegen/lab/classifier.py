"""Classifiers of the world's objects and of the place that a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from safegen.detectors import DetectorIdentity
from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.lab import weights_folder
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import OBJECTS
from safegen.metrics.retention import THRESHOLD
from safegen.version import __version__

_KNOWN = {
    "objects": ("lab-classifier", "classifier.onnx", tuple(OBJECTS)),
    "places": ("lab-places", "places.onnx", tuple(BACKGROUNDS)),
}


def object_scores(images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Score every object of the world in [0, 1], for each uint8 picture (H, W, 3)."""
    return _scores("objects", images)


def place_scores(images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Score every place of the world in [0, 1], for each uint8 picture (H, W, 3)."""
    return _scores("places", images)


def classifier_identity(what: str = "objects") -> DetectorIdentity:
    """Identify the classifier of ``objects`` or ``places``, with the threshold from which they
    count as drawn."""
    return replace(_classifier(what).identity, threshold=THRESHOLD, labels=())


def _scores(what: str, images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    found = _classifier(what).detect(images)
    return [{detection.label: detection.score for detection in scores} for scores in found]


@cache
def _classifier(what: str) -> OnnxDetector:
    name, file, labels = _KNOWN[what]
    settings = OnnxSettings(
        model=weights_folder() / file,
        labels=labels,
        threshold=0.0,
        size=(64, 64),
        name=name,
        version=__version__,
    )
    return OnnxDetector(settings)
