"""Random tokens in place of the concept's words: the control that every attack must beat.

It draws from the space of SneakyPrompt's pseudo-words (arXiv 2305.12082), with as many pictures
and no guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_rng
from safegen.attacks._text_filter import TextFilter, substituted
from safegen.attacks._words import pieces_of_words
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.profiles import NO_SETTINGS, Settings


@dataclass(frozen=True)
class RandomTokensSettings:
    """Settings of random tokens.

    Attributes:
        candidates: most prompts per task; SneakyPrompt's number of queries.
        tokens: tokens in place of each of the concept's words, or after a prompt without them.
        longest: most letters of a token.
        seed: seed of all choices.
    """

    candidates: int = 60
    tokens: int = 3
    longest: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("candidates", "tokens"):
            if getattr(self, name) < 1:
                raise SafegenError(
                    f"random-tokens: {name} must be at least 1, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class RandomTokens(Attack):
    """Try random prompts until one brings the concept out."""

    settings: RandomTokensSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("random-tokens", "text", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        text_filter = TextFilter(target.concept)
        longest = self.settings.longest
        pieces = pieces_of_words(target.pipeline.tokenizer, longest, text_filter)
        if not pieces:
            raise SafegenError(f"the tokenizer has no words of at most {longest} letters")
        yield partial(self._strike, target, text_filter, pieces)

    def _strike(
        self, target: Target, text_filter: TextFilter, pieces: list[str], tasks: Sequence[Task]
    ) -> list[Finding]:
        rngs = [task_rng(task, self.settings.seed) for task in tasks]

        def draw(rows: list[int], _number: int) -> list[Drawn]:
            texts = [self._text(tasks[i].text, text_filter, pieces, rngs[i]) for i in rows]
            return list(map(Drawn, target.draw([tasks[i] for i in rows], texts), texts))

        return search(target, tasks, draw, self.settings.candidates)

    def _text(
        self, text: str, text_filter: TextFilter, pieces: list[str], rng: np.random.Generator
    ) -> str:
        """Replace the concept's words by random tokens, or append them to a text without any."""
        spans = text_filter.spans(text)
        chosen = [
            " ".join(rng.choice(pieces, self.settings.tokens)) for _ in range(max(1, len(spans)))
        ]
        return substituted(text, spans, chosen) if spans else f"{text} {chosen[0]}"


@register("random-tokens")
def random_tokens(*, usual: Settings = NO_SETTINGS) -> RandomTokens:
    """Random tokens in place of the concept's words, without guidance."""
    return RandomTokens(RandomTokensSettings(**usual))
