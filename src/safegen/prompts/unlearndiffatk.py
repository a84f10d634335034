"""Prompts attacked by UnlearnDiffAtk (arXiv 2310.11868)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safegen.prompts import register
from safegen.prompts._files import FilePrompts


@register("unlearndiffatk")
@dataclass(frozen=True)
class UnlearnDiffAtkPrompts(FilePrompts):
    """CSV of the authors, with the seeds and guidance scales of I2P."""

    kind: ClassVar[str] = "unlearndiffatk"
