"""Detectors of the lab's six kinds of weapons."""

from __future__ import annotations

from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.version import __version__

FILES = {"first": "detector.onnx", "second": "second_detector.onnx"}


def lab(which: str = "first", *, threshold: float = 0.5) -> OnnxDetector:
    """Load one of the lab's two detectors, trained alike on different scenes.

    Args:
        which: ``first`` or ``second``; their errors differ.
        threshold: lowest score that counts, in [0, 1].

    Raises:
        SafegenError: the name is unknown.
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
