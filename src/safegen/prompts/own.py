"""Own prompts: any CSV, JSONL or text file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from safegen.prompts import register
from safegen.prompts._files import FilePrompts
from safegen.prompts._records import CSV, JSONL, TEXT, Format


@register("own")
@dataclass(frozen=True)
class OwnPrompts(FilePrompts):
    """CSV or JSONL with at least a column of prompts, or a text file with one per line.

    The columns ``id``, ``seed``, ``guidance`` and ``categories`` are used if present.

    Args:
        name: name of the set in tables and at the start of its ids.
    """

    name: str = "own"

    kind: ClassVar[str] = "own"
    text_columns: ClassVar[tuple[str, ...]] = ("prompt", "text", "caption")
    id_columns: ClassVar[tuple[str, ...]] = ("id",)
    formats: ClassVar[Mapping[str, Format]] = {".csv": CSV, ".jsonl": JSONL, ".txt": TEXT}
