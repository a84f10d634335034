"""What several detectors need: checking pictures and thresholds, reading settings files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def read_fields(
    file: Path, settings: type, needed: Sequence[str], lists: Sequence[str]
) -> dict[str, Any]:
    """The fields of a settings dataclass from a JSON object, its lists as tuples.

    Args:
        file: the JSON file.
        settings: the dataclass.
        needed: fields that must be there.
        lists: fields that must be lists of names.

    Raises:
        SafegenError: the file is missing or no JSON object, or a field is unknown or missing.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SafegenError(f"{file}: cannot be read as JSON ({error})") from error
    known = [field.name for field in dataclasses.fields(settings)]
    if not isinstance(fields, dict) or not set(needed) <= set(fields):
        raise SafegenError(f"{file}: must be a JSON object with at least {' and '.join(needed)}")
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise SafegenError(f"{file}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    for key in set(lists) & set(fields):
        if not isinstance(fields[key], list):
            raise SafegenError(f"{file}: {key} must be a list of names")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
