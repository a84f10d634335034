"""Words, and pieces of words, that text attacks put prompts together from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from safegen.attacks._text_filter import TextFilter

END_OF_WORD = "</w>"
"""Suffix of a CLIP token that ends a word."""
SHORTEST = 2
LONGEST_LIST = 10_000


def pieces_of_words(tokenizer: Any, longest: int, text_filter: TextFilter) -> list[str]:
    """List a CLIP tokenizer's tokens of 2 to ``longest`` letters that spell no refused word."""
    plain = (token.removesuffix(END_OF_WORD) for token in _tokens(tokenizer))
    return _usable((text for text in plain if len(text) <= longest), text_filter)


def natural_words(
    tokenizer: Any, text_filter: TextFilter, caption_words: Callable[[], Sequence[str]] | None
) -> list[str]:
    """List at most 10 000 words that spell no refused one, from the model's captions if known.

    Otherwise they are the first words among a CLIP tokenizer's tokens, which are ordered by
    frequency in the tokenizer's training text.
    """
    if caption_words is not None:
        return _usable(caption_words(), text_filter)[:LONGEST_LIST]
    ends = (token for token in _tokens(tokenizer) if token.endswith(END_OF_WORD))
    words = (token.removesuffix(END_OF_WORD) for token in ends)
    return _usable((word for word in words if len(word) > SHORTEST), text_filter)[:LONGEST_LIST]


def _tokens(tokenizer: Any) -> list[str]:
    """List all tokens by number."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _usable(texts: Iterable[str], text_filter: TextFilter) -> list[str]:
    """Filter to distinct texts of two or more letters that spell no refused word."""
    plain = (text for text in texts if re.fullmatch(rf"[a-z]{{{SHORTEST},}}", text))
    return [text for text in dict.fromkeys(plain) if not text_filter.spells(text)]
