"""Triplets from picture files, censored on reading where a censored twin is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from safegen.detectors import Box, Detection, Detector
from safegen.errors import SafegenError
from safegen.triplets.censoring import censor, censor_mask, check_censoring
from safegen.triplets.files import (
    PictureFile,
    TripletFiles,
    UnsafeFile,
)
from safegen.triplets.pictures import read_mask, read_picture
from safegen.triplets.source import Benign, Pair


class FileTriplets:
    """Stream the triplets of listed files (``list_folders``, ``list_csv``).

    Args:
        files: list of files.
        censoring: method that censors regions, or a mixture (see ``censor``).
        detector: detector of regions in pictures with neither a censored twin nor a mask.
        skip_undetected: skip pictures without detections.

    Attributes:
        skipped: unsafe pictures skipped so far.

    Raises:
        SafegenError: regions are needed and there is no detector; while streaming, a picture is
            unusable (the message names it) or all were skipped.
    """

    def __init__(
        self,
        files: TripletFiles,
        censoring: str = "pixelate",
        detector: Detector | None = None,
        skip_undetected: bool = False,
    ) -> None:
        if files.undecided and detector is None:
            raise SafegenError(
                f"{files.undecided} unsafe pictures have neither a censored twin nor a mask; "
                "give a detector or a folder of masks"
            )
        self.files = files
        self.censoring = check_censoring(censoring)
        self.detector = detector
        self.skip_undetected = skip_undetected
        self.skipped = 0

    def pairs(self) -> Iterator[Pair]:
        """See ``TripletSource.pairs``."""
        self.skipped = 0
        for index, item in enumerate(self.files.unsafe):
            unsafe = read_picture(item.picture.path, item.picture.where)
            censored = self._censored(item, unsafe, index)
            if censored is None:
                self.skipped += 1
            else:
                yield Pair(unsafe, censored, item.picture.where)
        if self.skipped == len(self.files.unsafe):
            raise SafegenError(
                f"the detector found nothing in any of the {self.skipped} unsafe pictures; "
                "choose another detector, lower its threshold, or give masks"
            )

    def benign(self) -> Iterator[Benign]:
        """See ``TripletSource.benign``."""
        for file in self.files.benign:
            yield Benign(read_picture(file.picture.path, file.picture.where), file.caption)

    def describe(self) -> dict[str, Any]:
        """See ``TripletSource.describe``."""
        return {
            **self.files.origin,
            "unsafe_count": len(self.files.unsafe) - self.skipped,
            "benign_count": len(self.files.benign),
            "skipped": self.skipped,
            "censoring": self.censoring,
            "detector": asdict(self.detector.identity) if self.detector else None,
        }

    def _censored(self, item: UnsafeFile, unsafe: np.ndarray, index: int) -> np.ndarray | None:
        """Return the censored twin; None to skip the picture."""
        if item.censored is not None:
            return read_picture(item.censored.path, item.censored.where)
        if item.mask is not None:
            mask = _fitting_mask(item.mask, unsafe)
            return censor_mask(unsafe, mask, self.censoring, index)
        assert self.detector is not None
        boxes = boxes_of(self.detector.detect([unsafe])[0], self.detector)
        if boxes:
            return censor(unsafe, boxes, self.censoring, index)
        if self.skip_undetected:
            return None
        raise SafegenError(
            f"{item.picture.where}: the detector {self.detector.identity.name} finds nothing "
            "unsafe in it; give a mask, lower the threshold, or pass over such pictures "
            "(--skip-undetected)"
        )


def boxes_of(detections: list[Detection], detector: Detector) -> list[Box]:
    """Boxes of a picture's detections.

    Raises:
        SafegenError: the detector gives no boxes.
    """
    boxes = [detection.box for detection in detections if detection.box is not None]
    if len(boxes) < len(detections):
        raise SafegenError(
            f"the detector {detector.identity.name} gives no boxes, so it cannot say what to "
            "censor; choose one that does, or give masks"
        )
    return boxes


def _fitting_mask(file: PictureFile, picture: np.ndarray) -> np.ndarray:
    mask = read_mask(file.path, file.where)
    if mask.shape != picture.shape[:2]:
        raise SafegenError(
            f"{file.where}: the mask is {mask.shape[1]} x {mask.shape[0]} and its picture "
            f"{picture.shape[1]} x {picture.shape[0]}; make it the same size"
        )
    return mask
