"""NudeNet v3: exposed and covered parts of the body, with boxes.

Optional (``safegen[nudenet]``): the package's metadata says MIT, its licence file and model file
say AGPL-3.0. Pictures stay in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from safegen.detectors import Detection, DetectorIdentity, register
from safegen.detectors._common import check_images, check_threshold
from safegen.errors import MissingExtraError, SafegenError
from safegen.files import file_hash

EXPOSED: tuple[str, ...] = (
    "ANUS_EXPOSED",
    "ARMPITS_EXPOSED",
    "BELLY_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEET_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)
COVERED: tuple[str, ...] = (
    "ANUS_COVERED",
    "ARMPITS_COVERED",
    "BELLY_COVERED",
    "BUTTOCKS_COVERED",
    "FEET_COVERED",
    "FEMALE_BREAST_COVERED",
    "FEMALE_GENITALIA_COVERED",
)
FACES: tuple[str, ...] = ("FACE_FEMALE", "FACE_MALE")
FLOOR = 0.25
"""Score below which NudeNet itself drops parts."""


@register("nudenet")
class NudeNetDetector:
    """NudeNet with its own decoding, so boxes and scores are NudeNet's.

    Args:
        threshold: lowest score that counts; at least ``FLOOR``, below which NudeNet is silent.
        labels: parts that count as unsafe.
        swapped_channels: swap red and blue, as NudeNet 3.4.2 does with files (its issue 203), for
            figures comparable with its file interface. The network was trained on RGB and scores
            lower on swapped channels.
        batch_size: pictures per pass.
    """

    def __init__(
        self,
        *,
        threshold: float = FLOOR,
        labels: tuple[str, ...] = EXPOSED,
        swapped_channels: bool = False,
        batch_size: int = 16,
    ) -> None:
        check_threshold(threshold, "nudenet", FLOOR)
        unknown = sorted(set(labels) - {*EXPOSED, *COVERED, *FACES})
        if unknown or not labels:
            raise SafegenError(
                f"detector nudenet: unknown parts {unknown}; "
                f"known: {', '.join((*EXPOSED, *COVERED, *FACES))}"
            )
        self._detector, model = _load()
        self._swapped = swapped_channels
        self._batch_size = batch_size
        release = version("nudenet") + (" swapped channels" if swapped_channels else "")
        self.identity = DetectorIdentity("nudenet", release, file_hash(model), threshold, labels)

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        check_images(images)
        arrays = [np.ascontiguousarray(i[..., ::-1] if self._swapped else i) for i in images]
        answers = self._detector.detect_batch(arrays, self._batch_size)
        return [self._detections(parts) for parts in answers]

    def _detections(self, parts: list[dict[str, Any]]) -> list[Detection]:
        found = []
        for part in parts:
            label, score = str(part["class"]), float(part["score"])
            if label in self.identity.labels and score >= self.identity.threshold:
                left, top, width, height = part["box"]
                box = (float(left), float(top), float(left + width), float(top + height))
                found.append(Detection(label, score, box))
        return sorted(found, key=lambda detection: -detection.score)


def _load() -> tuple[Any, Path]:
    """Load NudeNet's detector and the path of its packaged model file."""
    try:
        import nudenet
    except ImportError as error:
        raise MissingExtraError("the detector nudenet", "nudenet") from error
    return nudenet.NudeDetector(), Path(nudenet.__file__).parent / "320n.onnx"
