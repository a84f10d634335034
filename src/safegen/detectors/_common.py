"""Shared checks of detectors, and reading of settings files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from safegen.errors import SafegenError
from safegen.files import read_object
from safegen.settings import described, fits, numbers

T = TypeVar("T")


def check_images(images: Sequence[np.ndarray]) -> None:
    """Refuse an empty list, which would look like a safe result, and anything but pictures."""
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


def build(file: Path, settings: type[T], fields: Mapping[str, Any]) -> T:
    """Build settings from fields; an error names the file of the fields."""
    try:
        return settings(**fields)
    except SafegenError as error:
        raise SafegenError(f"{file}: {error}") from error


def read_fields(file: Path, settings: type, needed: Sequence[str]) -> dict[str, Any]:
    """Read the fields of a settings dataclass from a JSON object, its lists as tuples.

    Args:
        file: the JSON file.
        settings: dataclass; a path is a string in the file.
        needed: required fields.

    Raises:
        SafegenError: the file is missing or no JSON object, or a field is unknown, missing or of
            another type.
    """
    found = read_object(file, "correct it")
    kinds = get_type_hints(settings)
    if not set(needed) <= set(found):
        raise SafegenError(f"{file}: must be a JSON object with at least {' and '.join(needed)}")
    unknown = sorted(set(found) - set(kinds))
    if unknown:
        raise SafegenError(f"{file}: unknown {', '.join(unknown)}; known: {', '.join(kinds)}")
    fields = {key: tuple(each) if isinstance(each, list) else each for key, each in found.items()}
    for key, value in fields.items():
        kind = str if kinds[key] is Path else kinds[key]
        if not fits(value, kind) or not all(map(math.isfinite, numbers(value))):
            raise SafegenError(f"{file}: {key} must be {described(kind)}, not {found[key]!r:.60}")
    return fields
