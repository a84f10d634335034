"""Captions of COCO (arXiv 1405.0312, 1504.00325): the usual benign prompts of papers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safegen.errors import SafegenError
from safegen.prompts import register
from safegen.prompts._files import FilePrompts
from safegen.prompts._records import CSV, Format, Record

_ID = "annotation_id"


def _slim(found: dict[str, Any]) -> dict[str, Any]:
    """Drop unneeded parts of an object as soon as it is read, to save memory."""
    if "annotations" in found:
        return found
    return {key: found[key] for key in ("id", "caption") if key in found}


def _annotations(path: Path) -> Iterator[Record]:
    try:
        content = json.loads(path.read_bytes(), object_hook=_slim)
    except OSError as error:
        raise SafegenError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except (ValueError, RecursionError) as error:
        raise SafegenError(f"{path}: is not valid JSON ({error}); download it again") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise SafegenError(
            f"{path}: has no list of annotations; give COCO's captions_….json, or a CSV"
        )
    for number, annotation in enumerate(annotations, start=1):
        known = annotation if isinstance(annotation, dict) else {}
        fields = {_ID: known.get("id"), "caption": known.get("caption")}
        yield Record(number, f"annotation {number}", None, fields)


@register("coco")
@dataclass(frozen=True)
class CocoPrompts(FilePrompts):
    """Official ``captions_….json``, or a CSV of the erasure papers.

    As in the SafeGen paper, a seed draws 25 000 captions unless ``count`` says otherwise.
    """

    count: int | None = 25_000
    subset_seed: int | None = 0

    kind: ClassVar[str] = "coco"
    text_columns: ClassVar[tuple[str, ...]] = ("caption", "prompt", "text")
    id_columns: ClassVar[tuple[str, ...]] = (_ID,)
    formats: ClassVar[Mapping[str, Format]] = {
        ".json": Format(lambda _: [_ID, "caption"], _annotations),
        ".csv": CSV,
    }
