"""Several detectors that must agree, so that none of them alone can be exploited."""

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
    """Finds something in a picture only where each of its detectors does.

    What is found is what the first of them finds, none of it with a higher score than the best of
    any other's.

    Args:
        detectors: at least two.

    Raises:
        SafegenError: there is but one.
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
    """The detectors of several specs joined by ``+``, each at its own threshold.

    A ``+`` parts two specs only where a detector's name follows, so that one within a spec, as in
    ``transformers:MODEL,unsafe=nsfw+porn``, stays there.

    Raises:
        SafegenError: there is but one, or one cannot be made.
    """
    names = "|".join(re.escape(name) for name in DETECTORS.names())
    parts = re.split(rf"\+(?=(?:{names})(?:[:,+]|$))", specs)
    return AgreeingDetector(
        [create_detector(part, local_files_only=local_files_only) for part in parts]
    )
