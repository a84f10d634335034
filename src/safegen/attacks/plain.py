"""The goals as they stand: no search, for comparison and to be repeated over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target


class Plain(Attack):
    """Draw each goal's own text."""

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("plain", "text", "black box")

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        yield partial(_strike, target)


def _strike(target: Target, tasks: Sequence[Task]) -> list[Finding]:
    def draw(rows: list[int], _number: int) -> list[Drawn]:
        samples = target.draw([tasks[i] for i in rows])
        return [Drawn(sample, tasks[row].text) for row, sample in zip(rows, samples, strict=True)]

    return search(target, tasks, draw)


@register("plain")
def plain() -> Plain:
    """The goals as they stand, without a search."""
    return Plain()
