"""Rewriter: a policy over rewordings that learns from the target's answers, as RPG-RT does.

RPG-RT (arXiv 2505.21074) tunes a language model on what a target drew for its rewrites, and then
rewrites new goals. Here the rewrites are those of a grammar that the model's profile has: another
name for the concept, and something beside it. The policy learns on the examples, once for all
goals, from pictures alone; each goal then gets the rewrites that it came to prefer, in turn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._policy import Policy
from safegen.attacks._text_filter import TextFilter, substituted
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.profiles import Profile, Rewordings, profile_for
from safegen.registry import takes
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting

ARTICLE = re.compile(r"\b(an?|the) $")
PREFERRED = 1024
"""Proposals of the learned policy that its preferences are counted in."""


@dataclass(frozen=True)
class RewriterSettings(Settings, of="rewriter"):
    """Settings of the rewriter."""

    rounds: int = setting(40, "Steps of the policy.", minimum=0)
    batch: int = setting(16, "Pictures per step.", minimum=1)
    tries: int = setting(8, "Most rewrites of each goal.", minimum=1)
    learning_rate: float = setting(0.05, "Learning rate of the policy (Adam).", above=0)
    width: int = setting(30, "Width of the policy's recurrent network.", minimum=1)
    seed: int = setting(0, "Seed of the policy and its pictures.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Rewriter(Attack):
    """Learn which rewordings the target draws unsafe, and reword the goals so."""

    settings: RewriterSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("rewriter", "text", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the policy learns here, from the examples.

        Raises:
            SafegenError: there are no examples, or the model's profile has no rewordings.
        """
        if not target.examples:
            raise SafegenError(
                "rewriter learns from what the target draws of examples, and there are none; "
                "give prompts other than those attacked: --examples"
            )
        grammar = Grammar(target)
        preferred = learned(target, grammar, self.settings)
        yield partial(self._strike, target, grammar, preferred)

    def _strike(
        self,
        target: Target,
        grammar: Grammar,
        preferred: Sequence[tuple[int, ...]],
        tasks: Sequence[Task],
    ) -> list[Finding]:
        told = {"learned_from": self.settings.rounds * self.settings.batch}

        def draw(rows: list[int], number: int) -> list[Drawn]:
            texts = [grammar.reword(tasks[i].text, preferred[number]) for i in rows]
            samples = target.draw([tasks[i] for i in rows], texts)
            return [
                Drawn(sample, text, details=dict(told))
                for sample, text in zip(samples, texts, strict=True)
            ]

        return search(target, tasks, draw, len(preferred))


class Grammar:
    """Rewordings of a text, as choices in three places: name, link and partner.

    Raises:
        SafegenError: the model's profile has none that the text filter passes.
    """

    def __init__(self, target: Target) -> None:
        self._filter = TextFilter(target.concept)
        known = (profile_for(target.pipeline) or Profile()).rewordings
        found = known() if known is not None else Rewordings()
        self.places = [
            [
                text
                for text in texts
                if not (self._filter.refuses(text) or self._filter.spells(text))
            ]
            for texts in (found.names, found.links, found.partners)
        ]
        if not all(self.places):
            raise SafegenError(
                "rewriter: rewordings of this model's texts are not known; its profile has none, "
                "so attack it with sneakyprompt:n"
            )

    @property
    def choices(self) -> int:
        """Largest number of choices in a place; in others they repeat."""
        return max(map(len, self.places))

    def plain(self, actions: Sequence[int]) -> tuple[int, ...]:
        """Number of the choice in each place that actions stand for."""
        pairs = zip(actions, self.places, strict=True)
        return tuple(action % len(texts) for action, texts in pairs)

    def reword(self, text: str, actions: Sequence[int]) -> str:
        """Reword a text by a choice for each place."""
        chosen = zip(self.places, self.plain(actions), strict=True)
        name, link, partner = (texts[choice] for texts, choice in chosen)
        instead = f"{name} {link} {partner}" if link else name
        spans = [self._with_article(text, start, end) for start, end in self._filter.spans(text)]
        if not spans:
            return f"{instead}, {text}"
        return substituted(text, spans, [instead] * len(spans))

    def _with_article(self, text: str, start: int, end: int) -> tuple[int, int]:
        found = ARTICLE.search(text[:start])
        return (found.start() if found else start), end


def learned(target: Target, grammar: Grammar, settings: RewriterSettings) -> list[tuple[int, ...]]:
    """Train a policy on the examples; returns different rewrites, the best first.

    A rewrite's reward is the judge's score of its picture. Examples and their seeds are used in
    turn, with a new seed each time. The rewrites are those that the policy prefers in the end, and
    after them those that were rewarded most.
    """
    seed = sample_seed("rewriter", base=settings.seed)
    policy = Policy(
        grammar.choices, len(grammar.places), settings.width, settings.learning_rate, seed
    )
    drawn, rewarded = 0, Counter[tuple[int, ...]]()
    for _ in range(settings.rounds):
        proposals = policy.propose(settings.batch)
        tasks, texts = [], []
        for actions in proposals.actions.tolist():
            example = target.examples[drawn % len(target.examples)]
            number = drawn // len(target.examples)
            fresh = sample_seed(example.id, number, example.seed) if number else example.seed
            tasks.append(Task(example.id, example.text, fresh, example.guidance))
            texts.append(grammar.reword(example.text, actions))
            drawn += 1
        samples = target.draw(tasks, texts)
        scores = target.scores([sample.image for sample in samples])
        policy.learn(proposals, torch.from_numpy(scores).float())
        for actions, score in zip(proposals.actions.tolist(), scores.tolist(), strict=True):
            rewarded[grammar.plain(actions)] += score
    with torch.no_grad():
        preferred = Counter(map(grammar.plain, policy.propose(PREFERRED).actions.tolist()))
    ranked = [rewrite for each in (preferred, rewarded) for rewrite, _ in each.most_common()]
    return list(dict.fromkeys(ranked))[: settings.tries]


@register("rewriter")
@takes(RewriterSettings)
def rewriter(**options: Any) -> Rewriter:
    """Rewordings that a policy learned to prefer from the target's pictures."""
    return Rewriter(RewriterSettings(**options))
