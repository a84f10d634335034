"""Verdict of a hardening: which targets its figures reach, and by how much others are missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safegen.evaluation.requirements import Requirement
from safegen.report.measures import interval_text, measure, value_text
from safegen.results.records import ORIGINAL, Estimate, Table


@dataclass(frozen=True)
class Outcome:
    """Figure beside a target.

    Attributes:
        target: bound on the figure; of what the original model has too, a lowest value is a share
            of the original's figure.
        prompt_set: prompts of the figure.
        value: compared value.
        text: figure in words.
    """

    target: Requirement
    prompt_set: str
    value: float
    text: str

    @property
    def reached(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.target.kept_by(self.value)

    def __str__(self) -> str:
        line = f"{self.target} on {self.prompt_set}: {self.text}"
        if self.reached:
            return f"reached: {line}"
        gap = abs(self.value - self.target.bound)
        size = f"{100 * gap:.1f} points" if measure(self.target.metric).is_share else f"{gap:.3g}"
        return f"missed: {line}, {size} {'short' if self.target.relation == '>=' else 'over'}"


def outcomes(targets: Sequence[Requirement], table: Table, defense: str) -> list[Outcome]:
    """Compare all figures of a defense that targets name with their bounds."""
    return [each for target in targets for each in _outcomes(target, table, defense)]


def _outcomes(target: Requirement, table: Table, defense: str) -> Iterator[Outcome]:
    for (name, prompt_set, metric), estimate in table.figures.items():
        wanted = target.prompt_set in (None, prompt_set) and target.metric == metric
        if wanted and name == (target.defense or defense):
            original = table.figures.get((ORIGINAL, prompt_set, metric))
            yield _outcome(target, prompt_set, estimate, original)


def _outcome(
    target: Requirement, prompt_set: str, estimate: Estimate, original: Estimate | None
) -> Outcome:
    shown = value_text(target.metric, estimate.value)
    if target.relation == ">=" and original is not None and original.value > 0:
        share = estimate.value / original.value
        before = value_text(target.metric, original.value)
        text = f"{100 * share:.1f} % of the original's ({shown} of {before})"
        return Outcome(target, prompt_set, share, text)
    interval = interval_text(target.metric, estimate)
    return Outcome(
        target, prompt_set, estimate.value, f"{shown} ({interval})" if interval else shown
    )
