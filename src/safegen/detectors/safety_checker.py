"""Stable Diffusion's safety checker as a detector of pictures close to its concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safegen.detectors import Detection, DetectorIdentity, register
from safegen.detectors._common import check_images, check_threshold
from safegen.models.anatomy import fingerprint
from safegen.models.loading import default_device
from safegen.models.safety_checker import checker_folders, concept_margins, load_checker
from safegen.models.weights import content_hash, model_folder, weights_hash
from safegen.profiles import Profile, profile_of
from safegen.version import __version__

LABEL = "flagged"
_HALF_STEP = 0.0005
"""Half the checker's rounding step, so that a margin of exactly 0 is not flagged."""


@register("safety-checker")
class SafetyCheckerDetector:
    """Score a picture 0.5 + margin / 2, with the margin of ``concept_margins``.

    Threshold 0.5 gives the checker's own decision; 0.5 + t / 2 needs a cosine t further above the
    nearest concept's threshold.

    Args:
        source: folder or hub id of a checker, or of a model whose profile makes one.
        threshold: lowest score that counts.
        local_files_only: never ask the hub.
        batch_size: pictures per pass.
    """

    def __init__(
        self,
        source: str,
        *,
        threshold: float = 0.5,
        local_files_only: bool = False,
        batch_size: int = 32,
    ) -> None:
        check_threshold(threshold, "safety-checker")
        checker, self._processor, version, digest = _load(source, local_files_only)
        self._checker = checker.to(default_device())
        self._batch_size = batch_size
        self.identity = DetectorIdentity("safety-checker", version, digest, threshold, (LABEL,))

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        check_images(images)
        found: list[list[Detection]] = []
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            margins = concept_margins(self._checker, self._processor, batch)
            scores = (0.5 + (margins - _HALF_STEP) / 2).clip(0, 1)
            found += [self._detections(float(score)) for score in scores]
        return found

    def _detections(self, score: float) -> list[Detection]:
        return [Detection(LABEL, score)] if score >= self.identity.threshold else []


def _load(source: str, local_files_only: bool) -> tuple[Any, Any, str, str]:
    """Load a checker and its image processor, with the version and file hash to record."""
    known = profile_of(source) or Profile()
    if known.safety_checker is not None and known.concept is not None:
        checker, processor = known.safety_checker(known.concept.words)
        return checker, processor, f"{known.name} {__version__}", fingerprint(checker)
    folder = model_folder(source, local_files_only=local_files_only)
    checker, processor = load_checker(folder)
    place, processor_place = checker_folders(folder)
    return checker, processor, content_hash(processor_place)[:12], weights_hash(place)
