"""The lab's detector of weapons: where each of the six kinds is."""

from __future__ import annotations

from safegen.detectors import register
from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.lab import weights_folder
from safegen.lab.objects import UNSAFE_NAMES
from safegen.version import __version__


@register("lab")
def lab(*, threshold: float = 0.5) -> OnnxDetector:
    """The detector that ships with the lab."""
    settings = OnnxSettings(
        model=weights_folder() / "detector.onnx",
        labels=UNSAFE_NAMES,
        threshold=threshold,
        size=(64, 64),
        name="lab",
        version=__version__,
    )
    return OnnxDetector(settings)
