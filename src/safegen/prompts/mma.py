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

    Its ``adv_prompt`` is taken; choose ``column="sanitized_adv_prompt"`` (only words of the
    dictionary) or ``column="target_prompt"`` (what the attack aims at) for the other forms.
    """

    kind: ClassVar[str] = "mma"
    text_columns: ClassVar[tuple[str, ...]] = ("adv_prompt",)
    hub_file: ClassVar[str | None] = "mma-diffusion-nsfw-adv-prompts.csv"
