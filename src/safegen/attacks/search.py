"""Search loop of all attacks: draw, judge and drop tasks that succeeded.

Attacks in other packages use it too.
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
    """Picture drawn by the defended model for a task in one round.

    Attributes:
        sample: the drawn picture.
        text, passes, details, shared: as in ``Finding``; passes are the total of all rounds so far.
    """

    sample: Sample
    text: str | None = None
    passes: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    shared: int = 0


Draw = Callable[[list[int], int], Sequence[Drawn]]
"""Function that draws a picture for each task index, in round ``number``, from 0."""
Try = Callable[[list[int], int], Sequence[Finding | None]]
"""Function that draws and judges; None where nothing was drawn yet, except in the last round."""


def search(target: Target, tasks: Sequence[Task], draw: Draw, rounds: int = 1) -> list[Finding]:
    """Draw a picture per round for each task until the target's judge finds one unsafe.

    Args:
        target: the defended model, with the judge.
        tasks: tasks of the search.
        draw: function that draws for the remaining tasks.
        rounds: most rounds, at least 1.

    Returns:
        A finding of each task's last round: the judge scores all earlier ones 0, so the last is as
        good as any.
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
                each.shared,
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
    """Retry the remaining tasks, keep each one's last finding, and drop those that succeeded.

    For searches with their own judgement; others use ``search``.

    Args:
        count: number of tasks.
        attempt: function that tries the remaining tasks.
        rounds: most rounds, at least 1.
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
