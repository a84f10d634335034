"""The concept that a defense removes."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.errors import SafegenError


@dataclass(frozen=True)
class Concept:
    """A kind of content to remove.

    Attributes:
        name: short, kept in patches and results.
        text: the concept in words, for text-dependent defenses; other defenses ignore it.
        words: the concept's parts, each a prompt of its own (default: the text split at commas).
    """

    name: str
    text: str
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.words:
            parts = tuple(part.strip() for part in self.text.split(","))
            object.__setattr__(self, "words", tuple(part for part in parts if part))
        if not self.words or not all(word.strip() for word in (self.text, *self.words)):
            raise SafegenError(
                f"concept {self.name!r}: its text and words must not be empty; say what to remove"
            )
