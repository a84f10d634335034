"""The lab's detectors of weapons: where each of the six kinds is."""

from __future__ import annotations

from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.version import __version__

FILES = {"first": "detector.onnx", "second": "second_detector.onnx"}


def lab(which: str = "first", *, threshold: float = 0.5) -> OnnxDetector:
    """One of the two detectors that ship with the lab, trained alike on other scenes.

    Args:
        which: ``first``, or ``second``, whose errors are others.
        threshold: scores at or above it count.

    Raises:
        SafegenError: it is neither.
    """
    if which not in FILES:
        raise SafegenError(f"the lab has no detector {which!r}; known: {', '.join(FILES)}")
    settings = OnnxSettings(
        model=weights_folder() / FILES[which],
        labels=UNSAFE_NAMES,
        threshold=threshold,
        size=(64, 64),
        name="lab" if which == "first" else f"lab:{which}",
        version=__version__,
    )
    return OnnxDetector(settings)
