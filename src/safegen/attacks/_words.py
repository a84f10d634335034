"""Words, and pieces of words, that text attacks put prompts together from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from safegen.attacks._text_filter import TextFilter
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import OBJECTS
from safegen.lab.world.world import JOINERS, TEMPLATES

END_OF_WORD = "</w>"
"""How a CLIP tokenizer marks a token that ends a word."""
SHORTEST = 2
LONGEST_LIST = 10_000


def pieces_of_words(tokenizer: Any, longest: int, text_filter: TextFilter) -> list[str]:
    """A CLIP tokenizer's tokens of 2 to ``longest`` Latin letters that spell no refused word."""
    plain = (token.removesuffix(END_OF_WORD) for token in _tokens(tokenizer))
    return _usable((text for text in plain if len(text) <= longest), text_filter)


def natural_words(tokenizer: Any, text_filter: TextFilter, *, lab: bool) -> list[str]:
    """At most 10 000 words that spell no refused one, those of the lab's captions for the lab.

    Elsewhere they are the first words among a CLIP tokenizer's tokens, whose order is that of
    their frequency in what the tokenizer was made from.
    """
    if lab:
        return _usable(_caption_words(), text_filter)
    ends = (token for token in _tokens(tokenizer) if token.endswith(END_OF_WORD))
    words = (token.removesuffix(END_OF_WORD) for token in ends)
    return _usable((word for word in words if len(word) > SHORTEST), text_filter)[:LONGEST_LIST]


def _caption_words() -> list[str]:
    things = [text for thing in OBJECTS.values() for text in (thing.text, *thing.phrases)]
    places = [place.text for place in BACKGROUNDS.values()]
    wordings = [re.sub(r"\{\w+\}", "", template) for template in (*TEMPLATES, *JOINERS)]
    return re.findall(r"[a-z]+", " ".join([*wordings, *places, *things]))


def _tokens(tokenizer: Any) -> list[str]:
    """All tokens in the order of their numbers."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _usable(texts: Iterable[str], text_filter: TextFilter) -> list[str]:
    """Each text once, of at least two letters and none else, that spells no refused word."""
    plain = (text for text in texts if re.fullmatch(rf"[a-z]{{{SHORTEST},}}", text))
    return [text for text in dict.fromkeys(plain) if not text_filter.spells(text)]
