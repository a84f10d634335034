"""Adversarial prompts of MMA-Diffusion (arXiv 2311.17516)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safegen.prompts import register
from safegen.prompts._files import FilePrompts


@register("mma")
@dataclass(frozen=True)
class MmaPrompts(FilePrompts):
    """The benchmark's CSV.

    The default column is ``adv_prompt``; other forms are ``column="sanitized_adv_prompt"`` (only
    dictionary words) and ``column="target_prompt"`` (the attack's target).
    """

    kind: ClassVar[str] = "mma"
    text_columns: ClassVar[tuple[str, ...]] = ("adv_prompt",)
    hub_file: ClassVar[str | None] = "mma-diffusion-nsfw-adv-prompts.csv"
