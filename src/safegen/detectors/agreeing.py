"""Agreement of several detectors, so that no single one can be exploited."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from safegen.detectors import (
    DETECTORS,
    Detection,
    Detector,
    DetectorIdentity,
    create_detector,
    register,
)
from safegen.errors import SafegenError
from safegen.registry import Spec


class AgreeingDetector:
    """Detector that finds something only where all its detectors do.

    It returns the first detector's detections, with scores capped by the best score of every other
    detector.

    Args:
        detectors: at least two.

    Raises:
        SafegenError: fewer than two detectors are given.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        if len(detectors) < 2:
            raise SafegenError(
                "agreeing needs at least two detectors, as in agreeing:nudenet+opennsfw"
            )
        self._detectors = detectors
        identities = [detector.identity for detector in detectors]
        hashes = "".join(identity.file_hash for identity in identities)
        self.identity = DetectorIdentity(
            name="+".join(identity.name for identity in identities),
            version="+".join(identity.version for identity in identities),
            file_hash=hashlib.sha256(hashes.encode()).hexdigest(),
            threshold=min(identity.threshold for identity in identities),
            labels=identities[0].labels,
        )

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        of_each = [detector.detect(images) for detector in self._detectors]
        return [_agreed(*found) for found in zip(*of_each, strict=True)]


def _agreed(first: list[Detection], *others: list[Detection]) -> list[Detection]:
    if not all(others):
        return []
    bound = min(max(each.score for each in found) for found in others)
    return [replace(each, score=min(each.score, bound)) for each in first]


@register("agreeing")
def agreeing(specs: Spec, *, local_files_only: bool = False) -> AgreeingDetector:
    """Join the detectors of several specs with ``+``, each at its own threshold.

    A ``+`` separates two specs only before a detector's name, so a ``+`` within a spec, as in
    ``transformers:MODEL,unsafe=nsfw+porn``, stays there.

    Raises:
        SafegenError: fewer than two are given, or one cannot be created.
    """
    names = "|".join(re.escape(name) for name in DETECTORS.names())
    parts = re.split(rf"\+(?=(?:{names})(?:[:,+]|$))", specs)
    return AgreeingDetector(
        [create_detector(part, local_files_only=local_files_only) for part in parts]
    )
