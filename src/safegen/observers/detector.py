"""Detections of a detector: the unsafe parts in each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from safegen.detectors import Detection, create_detector
from safegen.observers import Observation, ObserverIdentity, Sight, register
from safegen.observers._common import pictures
from safegen.registry import Spec


@register("detector")
class DetectorObserver:
    """Record ``detections``: label, score and box of each, best first.

    Args:
        spec: spec of the detector.
        local_files_only: never ask the hub.
    """

    compares = False

    def __init__(self, spec: Spec, *, local_files_only: bool = False) -> None:
        self._detector = create_detector(spec, local_files_only=local_files_only)
        self.identity = ObserverIdentity("detector", asdict(self._detector.identity))

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        found = self._detector.detect(pictures(sights))
        return [Observation({"detections": [_record(each) for each in of]}) for of in found]


def _record(detection: Detection) -> dict[str, Any]:
    box = None if detection.box is None else [float(edge) for edge in detection.box]
    return {"label": detection.label, "score": float(detection.score), "box": box}
