"""What is to be removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safegen.errors import SafegenError
from safegen.lab.world.objects import OBJECTS

LAB_CONCEPT_TEXT = "weapon, knife, dagger, sword, axe, pistol, bomb"


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


LAB_WEAPONS = Concept(
    name="weapons",
    text=LAB_CONCEPT_TEXT,
    words=tuple(thing.text for thing in OBJECTS.values() if thing.unsafe),
)
"""The lab's stand-in for unsafe content."""


def concept_for(model: str, text: str | None = None, name: str | None = None) -> Concept | None:
    """The concept of a text; without one the lab's for the model ``lab``, else None.

    Args:
        model: as it was named.
        text: what to remove, its parts between commas.
        name: instead of ``concept``, or of the lab's.
    """
    if text is not None:
        return Concept(name or "concept", text)
    if model != "lab":
        return None
    return LAB_WEAPONS if name is None else replace(LAB_WEAPONS, name=name)
