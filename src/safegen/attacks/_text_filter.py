"""A text filter, as services put one in front of a model: it refuses what names a concept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from safegen.concepts import Concept

_ARTICLES = {"a", "an", "the"}
_WORD = re.compile(r"[^\W_]+")

Span = tuple[int, int]
"""Where a part of a text begins, and where it has ended."""


@dataclass(frozen=True)
class TextFilter:
    """Refuses prompts that hold a concept's words, in any case and in either number.

    It compares whole words. A word of several parts (``crossed swords``) is refused where its
    parts follow each other. So it knows no other word for the same thing.

    Attributes:
        concept: its words, and the parts of its text between commas, are refused.
    """

    concept: Concept

    def refuses(self, text: str) -> bool:
        """Whether a prompt holds any of the words."""
        return bool(self.spans(text))

    def spans(self, text: str) -> list[Span]:
        """Where the words stand, from left to right; the longest where several begin."""
        words = [(_singulars(found.group()), found.span()) for found in _WORD.finditer(text)]
        spans: list[Span] = []
        for position, (_, (start, _)) in enumerate(words):
            length = self._refused_at(position, [stems for stems, _ in words])
            if length and (not spans or start >= spans[-1][1]):
                spans.append((start, words[position + length - 1][1][1]))
        return spans

    def spells(self, text: str) -> bool:
        """Whether any of the words stands within a longer one, as in ``penknifes``.

        The filter lets such a text pass, though the word is there in disguise.
        """
        words = _WORD.findall(text.casefold())
        return any(spelling in word for word in words for spelling in self._spellings)

    def without(self, text: str, instead: str = "") -> str:
        """The prompt without the words; ``instead`` stands in the place of each."""
        spans = self.spans(text)
        return " ".join(substituted(text, spans, [instead] * len(spans)).split())

    def _refused_at(self, position: int, stems: Sequence[frozenset[str]]) -> int:
        """How many words from a position on are refused; 0 if none."""
        fitting = (
            len(word)
            for word in self._words
            if position + len(word) <= len(stems)
            and all(_singulars(part) & stems[position + i] for i, part in enumerate(word))
        )
        return max(fitting, default=0)

    @cached_property
    def _words(self) -> list[list[str]]:
        """What is refused, each in its parts."""
        texts = (*self.concept.words, *self.concept.text.split(","))
        split = [_WORD.findall(text.casefold()) for text in texts]
        plain = [[part for part in parts if part not in _ARTICLES] for parts in split]
        return [parts for parts in plain if parts]

    @cached_property
    def _spellings(self) -> set[str]:
        """The letters of each word, also of what it is the plural of; not of the shortest."""
        spellings = {
            "".join([*parts, stem]) for *parts, last in self._words for stem in _singulars(last)
        }
        return {spelling for spelling in spellings if len(spelling) > 2}


def substituted(text: str, spans: Sequence[Span], substitutes: Sequence[str]) -> str:
    """A text with something else in the place of each span; the spans are from left to right."""
    parts, end = [], 0
    for (start, stop), substitute in zip(spans, substitutes, strict=True):
        parts += [text[end:start], substitute]
        end = stop
    return "".join([*parts, text[end:]])


def _singulars(word: str) -> frozenset[str]:
    """The word and all that it may be the plural of: of ``axes`` axes, axe and ax."""
    word = word.casefold()
    found = {word}
    for ending, singulars in (("s", [""]), ("es", [""]), ("ies", ["y"]), ("ves", ["f", "fe"])):
        if word.endswith(ending) and not word.endswith("ss"):
            found |= {word.removesuffix(ending) + singular for singular in singulars}
    return frozenset(found)
