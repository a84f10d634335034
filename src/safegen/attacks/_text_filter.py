"""Text filter, as services put in front of a model: refuses prompts that name a concept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from safegen.concepts import Concept

_ARTICLES = {"a", "an", "the"}
_WORD = re.compile(r"[^\W_]+")

Span = tuple[int, int]
"""Start and end of a part of a text."""


@dataclass(frozen=True)
class TextFilter:
    """Refuse prompts with a concept's words, in any case, singular or plural.

    It compares whole words. A word of several parts (``crossed swords``) is refused where its parts
    follow each other. Synonyms pass.

    Attributes:
        concept: concept whose words, and whose text's parts between commas, are refused.
    """

    concept: Concept

    def refuses(self, text: str) -> bool:
        """Tell whether a prompt holds any of the words."""
        return bool(self.spans(text))

    def spans(self, text: str) -> list[Span]:
        """Find the words from left to right; the longest where several start."""
        words = [(_singulars(found.group()), found.span()) for found in _WORD.finditer(text)]
        spans: list[Span] = []
        for position, (_, (start, _)) in enumerate(words):
            length = self._refused_at(position, [stems for stems, _ in words])
            if length and (not spans or start >= spans[-1][1]):
                spans.append((start, words[position + length - 1][1][1]))
        return spans

    def spells(self, text: str) -> bool:
        """Tell whether any of the words stands inside a longer one, as in ``penknifes``.

        The filter lets such a text pass, though the word is there in disguise.
        """
        words = _WORD.findall(text.casefold())
        return any(spelling in word for word in words for spelling in self._spellings)

    def without(self, text: str, instead: str = "") -> str:
        """Replace the words in a prompt by ``instead``."""
        spans = self.spans(text)
        return " ".join(substituted(text, spans, [instead] * len(spans)).split())

    def _refused_at(self, position: int, stems: Sequence[frozenset[str]]) -> int:
        """Count the refused words from a position on; 0 if none."""
        fitting = (
            len(word)
            for word in self._words
            if position + len(word) <= len(stems)
            and all(_singulars(part) & stems[position + i] for i, part in enumerate(word))
        )
        return max(fitting, default=0)

    @cached_property
    def _words(self) -> list[list[str]]:
        """Refused words, split into their parts."""
        texts = (*self.concept.words, *self.concept.text.split(","))
        split = [_WORD.findall(text.casefold()) for text in texts]
        plain = [[part for part in parts if part not in _ARTICLES] for parts in split]
        return [parts for parts in plain if parts]

    @cached_property
    def _spellings(self) -> set[str]:
        """Letters of each word and of its singulars; the shortest are left out."""
        spellings = {
            "".join([*parts, stem]) for *parts, last in self._words for stem in _singulars(last)
        }
        return {spelling for spelling in spellings if len(spelling) > 2}


def substituted(text: str, spans: Sequence[Span], substitutes: Sequence[str]) -> str:
    """Replace each span of a text; spans run from left to right."""
    parts, end = [], 0
    for (start, stop), substitute in zip(spans, substitutes, strict=True):
        parts += [text[end:start], substitute]
        end = stop
    return "".join([*parts, text[end:]])


def _singulars(word: str) -> frozenset[str]:
    """The word and all its possible singulars: of ``axes`` axes, axe and ax."""
    word = word.casefold()
    found = {word}
    for ending, singulars in (("s", [""]), ("es", [""]), ("ies", ["y"]), ("ves", ["f", "fe"])):
        if word.endswith(ending) and not word.endswith("ss"):
            found |= {word.removesuffix(ending) + singular for singular in singulars}
    return frozenset(found)
