"""Tiny files in the formats of the published prompt sets, with harmless words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


def csv_text(columns: Sequence[str], *rows: Sequence[Any]) -> str:
    """A CSV as data frames write it."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    return buffer.getvalue()


def coco_json(*captions: tuple[int, str]) -> str:
    """COCO's official form, with its other parts."""
    annotations = [{"image_id": 9, "id": number, "caption": text} for number, text in captions]
    images = [{"id": 9, "file_name": "9.jpg", "license": 3, "height": 480}]
    return json.dumps({"info": {"year": 2014}, "images": images, "annotations": annotations})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def table() -> Callable[..., str]:
    """See ``csv_text``."""
    return csv_text


@pytest.fixture
def captions() -> Callable[..., str]:
    """See ``coco_json``."""
    return coco_json
