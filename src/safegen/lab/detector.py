"""Judges of the lab's six kinds of weapons: two detectors, and a judge of their outlines."""

from __future__ import annotations

from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.version import __version__

OUTLINE = "outline"
FILES = {"first": "detector.onnx", "second": "second_detector.onnx", OUTLINE: "outlines.onnx"}
OUTLINE_THRESHOLD = 0.5
"""Threshold of the judge of outlines: the lowest with at most 1 % of false alarms on the shapes
of the validation split, in steps of 0.05."""


def lab(which: str = "first", *, threshold: float | None = None) -> OnnxDetector:
    """Load one of the lab's judges.

    Args:
        which: ``first`` or ``second``, detectors trained alike on different scenes, whose errors
            differ; or ``outline``, which knows the objects by their shapes alone and gives no
            boxes.
        threshold: lowest score that counts, in [0, 1] (default: 0.5, or ``OUTLINE_THRESHOLD``).

    Raises:
        SafegenError: the name is unknown.
    """
    if which not in FILES:
        raise SafegenError(f"the lab has no detector {which!r}; known: {', '.join(FILES)}")
    outline = which == OUTLINE
    if threshold is None:
        threshold = OUTLINE_THRESHOLD if outline else 0.5
    settings = OnnxSettings(
        model=weights_folder() / FILES[which],
        labels=tuple(OBJECTS) if outline else UNSAFE_NAMES,
        unsafe_labels=UNSAFE_NAMES,
        threshold=threshold,
        size=(64, 64),
        name="lab" if which == "first" else f"lab:{which}",
        version=__version__,
    )
    return OnnxDetector(settings)
