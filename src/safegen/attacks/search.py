"""Searching for what brings the concept out: draw what is left, judge, keep, drop what succeeded.

The loop of all attacks here, and of attacks in other packages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from safegen.attacks import Finding, Task
from safegen.attacks.target import Target
from safegen.models.sampling import Sample


@dataclass(frozen=True)
class Drawn:
    """What the defended model drew for a task in one round.

    Attributes:
        sample: the picture.
        text, passes, details: as in ``Finding``; passes of all rounds so far.
    """

    sample: Sample
    text: str | None = None
    passes: int = 0
    details: dict[str, Any] = field(default_factory=dict)


Draw = Callable[[list[int], int], Sequence[Drawn]]
"""Draws a picture for each of the tasks at these places, in the round of this number, from 0."""
Try = Callable[[list[int], int], Sequence[Finding | None]]
"""The same, judged; None where nothing was drawn yet, which the last round may not leave."""


def search(target: Target, tasks: Sequence[Task], draw: Draw, rounds: int = 1) -> list[Finding]:
    """Draw a picture a round for each task, until the target's judge finds one of it unsafe.

    Args:
        target: the defended model, with the judge.
        tasks: what is searched for.
        draw: draws for the tasks that are left.
        rounds: at most, at least 1.

    Returns:
        A finding of each task's last round: the judge scores all that it lets pass 0, so the last
        is as good as any.
    """

    def judged(rows: list[int], number: int) -> list[Finding]:
        drawn = draw(rows, number)
        scores = target.scores([each.sample.image for each in drawn])
        return [
            Finding(
                each.sample.image,
                each.sample.blocked,
                float(score),
                each.text,
                number + 1,
                each.passes,
                each.details,
            )
            for each, score in zip(drawn, scores, strict=True)
        ]

    return pursue(len(tasks), judged, rounds)


def pursue(
    count: int,
    attempt: Try,
    rounds: int,
    succeeded: Callable[[Finding], bool] = lambda finding: finding.score > 0,
) -> list[Finding]:
    """Try what is left, keep what came of it last, and drop what succeeded.

    For a search with a judgement of its own; others take ``search``.

    Args:
        count: of tasks.
        attempt: tries those that are left.
        rounds: at most, at least 1.
        succeeded: whether a finding ends its task's search.
    """
    found: dict[int, Finding] = {}
    left = list(range(count))
    for number in range(rounds):
        tried = zip(left, attempt(left, number), strict=True)
        found.update({i: finding for i, finding in tried if finding is not None})
        left = [i for i in left if i not in found or not succeeded(found[i])]
        if not left:
            break
    return [found[i] for i in range(count)]
