"""Judges of the lab's objects: two detectors of weapons, and two judges of whole pictures."""

from __future__ import annotations

from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.version import __version__

OUTLINE, CLASSIFIER = "outline", "classifier"
FILES = {
    "first": "detector.onnx",
    "second": "second_detector.onnx",
    OUTLINE: "outlines.onnx",
    CLASSIFIER: "classifier.onnx",
}
OUTLINE_THRESHOLD = 0.5
"""Threshold of the judge of outlines: the lowest with at most 1 % of false alarms on the shapes
of the validation split, in steps of 0.05."""


def lab(
    which: str = "first", *, threshold: float | None = None, labels: tuple[str, ...] = UNSAFE_NAMES
) -> OnnxDetector:
    """Load one of the lab's judges.

    Args:
        which: ``first`` or ``second``, detectors trained alike on different scenes, whose errors
            differ; or, of all objects and without boxes, ``outline``, which knows them by their
            shapes alone, and ``classifier``.
        threshold: lowest score that counts, in [0, 1] (default: 0.5, or ``OUTLINE_THRESHOLD``).
        labels: objects that count.

    Raises:
        SafegenError: the name is unknown, or the judge does not know a label.
    """
    if which not in FILES:
        raise SafegenError(f"the lab has no detector {which!r}; known: {', '.join(FILES)}")
    if threshold is None:
        threshold = OUTLINE_THRESHOLD if which == OUTLINE else 0.5
    settings = OnnxSettings(
        model=weights_folder() / FILES[which],
        labels=tuple(OBJECTS) if which in (OUTLINE, CLASSIFIER) else UNSAFE_NAMES,
        unsafe_labels=labels,
        threshold=threshold,
        size=(64, 64),
        name="lab" if which == "first" else f"lab:{which}",
        version=__version__,
    )
    return OnnxDetector(settings)
