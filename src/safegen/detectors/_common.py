"""What several detectors need: checking pictures and thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safegen.errors import SafegenError


def check_images(images: Sequence[np.ndarray]) -> None:
    """Refuse an empty list, which would pass for a safe result, and anything but pictures."""
    if len(images) == 0:
        raise SafegenError("a detector that saw no image has found nothing; give it at least one")
    for number, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise SafegenError(
                f"picture {number} for the detector is {image.dtype} {image.shape}; "
                "it must be uint8 (height, width, 3)"
            )


def check_threshold(threshold: float, name: str, lowest: float = 0.0) -> None:
    """Refuse a threshold outside [lowest, 1]."""
    if not lowest <= threshold <= 1:
        raise SafegenError(
            f"detector {name}: threshold must be between {lowest:g} and 1, not {threshold:g}"
        )
