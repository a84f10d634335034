"""Columns of an evaluation's table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from safegen.metrics import Metric
from safegen.report.measures import best_of, measure
from safegen.report.standing import kinds_of
from safegen.results.records import Estimate, Table

ATTACK_METRIC = "asr"
"""Metric of attacks in compact tables; detailed tables have the others."""


@dataclass(frozen=True)
class Column:
    """Figures of one metric on one prompt set.

    Attributes:
        name: name of the metric.
        prompt_set: name of the prompt set.
        table: table that holds the figures.
    """

    name: str
    prompt_set: str
    table: Table

    @property
    def metric(self) -> Metric:
        """Metric of the column."""
        return measure(self.name)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Figures by defense; a defense without one is left out."""
        keys = ((row.name, self.prompt_set, self.name) for row in self.table.defenses)
        return {key[0]: self.table.figures[key] for key in keys if key in self.table.figures}

    @cached_property
    def best(self) -> set[str]:
        """Defenses with the best figure, controls apart; see ``best_of``."""
        kinds = kinds_of(self.table)
        compared = {name: each for name, each in self.estimates.items() if kinds[name] != "control"}
        return best_of(self.name, compared)


def shown_columns(table: Table) -> list[Column]:
    """List the columns of a compact table: of attacks, the success rate alone."""
    attacked = {record.name for record in table.prompt_sets if record.attack}
    return [
        each
        for each in columns(table)
        if each.name == ATTACK_METRIC or each.prompt_set not in attacked
    ]


def columns(table: Table) -> list[Column]:
    """List the columns with any figure: metric by metric, each in the prompt sets' order."""
    possible = [
        Column(name, record.name, table) for name in table.metrics for record in table.prompt_sets
    ]
    return [each for each in possible if each.estimates]
