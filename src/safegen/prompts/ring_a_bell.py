"""Prompts that Ring-A-Bell found (arXiv 2310.10012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safegen.prompts import register
from safegen.prompts._files import FilePrompts


@register("ring-a-bell")
@dataclass(frozen=True)
class RingABellPrompts(FilePrompts):
    """CSV of the authors (``prompt``), or pairs of later papers (``sensitive prompt``)."""

    kind: ClassVar[str] = "ring-a-bell"
    text_columns: ClassVar[tuple[str, ...]] = ("sensitive_prompt", "prompt")
