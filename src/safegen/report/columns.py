"""The columns of an evaluation's table, and its figures as text."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.evaluation.scoring import known_metrics
from safegen.metrics import Metric
from safegen.report.figures import percent
from safegen.results.records import ORIGINAL, Estimate, Table

SIGNIFICANT = 0.05
"""P-values below it get a star."""
ATTACK_METRIC = "asr"
"""What an attack is measured by; its other figures are for those who look closer."""


@dataclass(frozen=True)
class Column:
    """The figures of one metric on one prompt set.

    Attributes:
        name: of the metric.
        metric: the metric itself.
        prompt_set: the prompt set's name.
        table: where the figures are.
    """

    name: str
    metric: Metric
    prompt_set: str
    table: Table

    def estimate(self, defense: str) -> Estimate | None:
        """A defense's figure, if it has one."""
        return self.table.figures.get((defense, self.prompt_set, self.name))

    def is_best(self, defense: str) -> bool:
        """Whether no other defense is ahead; the original is none, and one alone is not best."""
        names = [record.name for record in self.table.defenses if record.name != ORIGINAL]
        values = {name: found.value for name in names if (found := self.estimate(name))}
        best = max if self.metric.higher_is_better else min
        return len(values) > 1 and defense in values and values[defense] == best(values.values())

    def number(self, value: float) -> str:
        """A value of the metric as text."""
        return percent(value) if self.metric.is_share else f"{value:.3f}"

    def interval(self, estimate: Estimate) -> str:
        """The two ends of a figure's interval as text; empty without one."""
        ends = estimate.interval or ()
        return "–".join(self.number(end).removesuffix(" %") for end in ends)


def is_significant(estimate: Estimate) -> bool:
    """Whether a figure differs significantly from the original's."""
    return estimate.p_value is not None and estimate.p_value < SIGNIFICANT


def shown_columns(table: Table) -> list[Column]:
    """The columns of a table that is read as a whole: of an attack only the success rate."""
    attacked = {record.name for record in table.prompt_sets if record.attack}
    return [
        each
        for each in columns(table)
        if each.name == ATTACK_METRIC or each.prompt_set not in attacked
    ]


def columns(table: Table) -> list[Column]:
    """The columns that have any figure: metric by metric, each in the prompt sets' order."""
    metrics = known_metrics()
    possible = [
        Column(name, metrics[name], record.name, table)
        for name in table.metrics
        for record in table.prompt_sets
    ]
    return [each for each in possible if any(each.estimate(row.name) for row in table.defenses)]
