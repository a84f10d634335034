"""What is to be removed."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.errors import SafegenError


@dataclass(frozen=True)
class Concept:
    """A kind of content to remove.

    Attributes:
        name: short, kept in patches and results.
        text: what text-dependent defenses are told; the rest never see it.
        words: its parts, each a prompt of its own; those between the text's commas if empty.
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
