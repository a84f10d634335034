"""Random tokens in place of the concept's words: the control that every attack must beat.

It draws from the space of SneakyPrompt's pseudo-words (arXiv 2305.12082), with as many pictures
and no guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_rng
from safegen.attacks._text_filter import TextFilter, substituted
from safegen.attacks._words import pieces_of_words
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class RandomTokensSettings(Settings, of="random-tokens"):
    """Settings of random tokens."""

    candidates: int = setting(
        60, "Most prompts per task; SneakyPrompt's number of queries.", minimum=1
    )
    tokens: int = setting(
        3,
        "Tokens in place of each of the concept's words, or after a prompt without them.",
        minimum=1,
    )
    longest: int = setting(9, "Most letters of a token.", minimum=1)
    seed: int = setting(0, "Seed of all choices.", minimum=0, maximum=MAX_SEED)


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
@takes(RandomTokensSettings)
def random_tokens(**options: Any) -> RandomTokens:
    """Random tokens in place of the concept's words, without guidance."""
    return RandomTokens(RandomTokensSettings(**options))
