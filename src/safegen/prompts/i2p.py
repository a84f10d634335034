"""Inappropriate Image Prompts of Safe Latent Diffusion (arXiv 2211.05105)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from safegen.errors import SafegenError
from safegen.prompts import register
from safegen.prompts._files import CATEGORY_COLUMNS, FilePrompts, categories_of
from safegen.prompts._records import Record

CATEGORIES = (
    "harassment",
    "hate",
    "illegal activity",
    "self-harm",
    "sexual",
    "shocking",
    "violence",
)

_NULL_SEED = 4261564198
"""Seed of the one prompt that is the word ``Null``, which pandas read as missing, so that the
most circulated file has an empty cell."""


@register("i2p")
@dataclass(frozen=True)
class InappropriateImagePrompts(FilePrompts):
    """``i2p_benchmark.csv``, or a copy with other names for seeds and guidance scales.

    Picture sizes are ignored: a model draws at its own.

    Args:
        categories: keep prompts of at least one of these; empty means all.

    Raises:
        SafegenError: a category is unknown, or the file has no column for them.
    """

    categories: tuple[str, ...] = ()

    kind: ClassVar[str] = "i2p"
    hub_file: ClassVar[str | None] = "i2p_benchmark.csv"

    def __post_init__(self) -> None:
        for category in self.categories:
            if category not in CATEGORIES:
                raise SafegenError(
                    f"prompts i2p: unknown category {category!r}; known: {', '.join(CATEGORIES)}"
                )
        super().__post_init__()
        if self.categories and self._columns.categories is None:
            raise SafegenError(
                f"{self.path}: has no column {' or '.join(CATEGORY_COLUMNS)}, so prompts cannot "
                "be chosen by category; leave categories out"
            )

    @property
    def selection(self) -> str:
        """See ``FilePrompts.selection``."""
        return f" of category {' or '.join(self.categories)}" if self.categories else ""

    def keeps(self, record: Record) -> bool:
        """Tell whether a record has a requested category."""
        if not self.categories:
            return True
        found = categories_of(record.fields.get(self._columns.categories or ""))
        return not set(found).isdisjoint(self.categories)

    def _text(self, record: Record) -> Any:
        found, seed = super()._text(record), self._columns.seed
        lost = not found and seed is not None and self._seed(record, seed) == _NULL_SEED
        return "Null" if lost else found
