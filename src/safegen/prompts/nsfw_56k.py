"""NSFW-56k of SafeGen (arXiv 2404.06666): captions of 56 000 pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safegen.prompts import register
from safegen.prompts._files import FilePrompts


@register("nsfw-56k")
@dataclass(frozen=True)
class Nsfw56kPrompts(FilePrompts):
    """A CSV of captions."""

    kind: ClassVar[str] = "nsfw-56k"
    text_columns: ClassVar[tuple[str, ...]] = ("caption", "prompt", "text")
