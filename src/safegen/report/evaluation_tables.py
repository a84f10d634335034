"""Figures of an evaluation in rows and columns: as bars, and as one table per prompt set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safegen.report.budgets import attack_kind, budget
from safegen.report.columns import ATTACK_METRIC
from safegen.report.columns import Column as TableColumn
from safegen.report.measures import interval_text, measure, significance_mark, value_text
from safegen.report.standing import Kind, attacked_sets, columns_of, kind_of
from safegen.results.records import ORIGINAL, Estimate, Table

BAR_METRICS = (
    "removal",
    "outlines-left",
    "asr",
    "retention",
    "near-miss-retention",
    "place-retention",
)
"""Metrics shown as bars, if a table has them."""
COMPARED_WITH = "the others are compared with this one"
UNKNOWN = "not measured"


@dataclass(frozen=True)
class Bar:
    """Figure and its interval as positions on a line, in percent of its length.

    Attributes:
        left, width: start and length of the bar, which reaches from zero to the value.
        low, spread: start and length of the interval; 0 without one.
    """

    left: float
    width: float
    low: float
    spread: float


@dataclass(frozen=True)
class Figure:
    """Figure as text.

    Attributes:
        value: the figure; empty without one.
        interval: ends of its interval; empty without one.
        mark: stars of significance.
        p_value: p-value in words; empty if no test applies.
        best: whether the figure is among the best of its column; see ``best_of``.
        number: the figure as a number, to sort by.
        bar: bar of the figure.
        reason: reason for a missing figure; empty if there is one.
    """

    value: str = ""
    interval: str = ""
    mark: str = ""
    p_value: str = ""
    best: bool = False
    number: float | None = None
    bar: Bar | None = None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """Defense, and its figure in every column."""

    defense: str
    kind: Kind
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Column:
    """Metric on a prompt set.

    Attributes:
        metric: title of the metric.
        prompt_set: name of the prompt set.
        higher_is_better: whether higher figures are better.
        count: number of items behind the figures, as text.
    """

    metric: str
    prompt_set: str
    higher_is_better: bool
    count: str


@dataclass(frozen=True)
class AttackRow:
    """Attack, and its success rate under each defense.

    Attributes:
        name: name of its prompt set.
        kind: side and access of the attack.
        budget: budget per task, in words.
        figures: one figure per defense.
    """

    name: str
    kind: str
    budget: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Grid:
    """Rows and columns under a title; a row has one figure per column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def bar_grids(table: Table) -> list[Grid]:
    """Build a grid per metric of ``BAR_METRICS``: its figures on every prompt set that has it,
    except those of attacks."""
    attacked = attacked_sets(table)
    grids = []
    for metric in BAR_METRICS:
        columns = [pair for pair in columns_of(table, [metric]) if pair[0] not in attacked]
        if columns:
            grids.append(_grid(table, measure(metric).title, columns))
    return grids


def attack_rows(table: Table) -> list[AttackRow]:
    """List the attacks whose success was measured, in the table's order."""
    measured = {name for name, _ in columns_of(table, [ATTACK_METRIC])}
    rows = []
    for record in table.prompt_sets:
        if record.attack and record.name in measured:
            found = _figures(TableColumn(ATTACK_METRIC, record.name, table))
            figures = tuple(found[defense.name] for defense in table.defenses)
            spent = budget(table, record.name)
            rows.append(AttackRow(record.name, attack_kind(record), spent, figures))
    return rows


def set_grids(table: Table) -> list[Grid]:
    """Build a grid per prompt set: all metrics with a figure for any defense."""
    columns = columns_of(table, table.metrics)
    return [
        _grid(table, record.name, [pair for pair in columns if pair[0] == record.name])
        for record in table.prompt_sets
    ]


def _grid(table: Table, title: str, pairs: Sequence[tuple[str, str]]) -> Grid:
    columns = [TableColumn(metric, prompt_set, table) for prompt_set, metric in pairs]
    by_column = [_figures(column) for column in columns]
    rows = (
        Row(record.name, kind_of(record), tuple(found[record.name] for found in by_column))
        for record in table.defenses
    )
    return Grid(title, tuple(map(_column, columns)), tuple(rows))


def _column(column: TableColumn) -> Column:
    counts = [each.count for each in column.estimates.values()]
    low, high = min(counts), max(counts)
    metric = column.metric
    count = f"{low}" if low == high else f"{low} – {high}"
    return Column(metric.title, column.prompt_set, metric.higher_is_better, count)


def _figures(column: TableColumn) -> dict[str, Figure]:
    """Convert a column to figures by defense."""
    table, metric = column.table, column.name
    scale = _scale(table, metric)
    figures = {}
    for record in table.defenses:
        estimate = column.estimates.get(record.name)
        figures[record.name] = (
            Figure(reason=_reason(table, record.name, column.prompt_set))
            if estimate is None
            else Figure(
                value=value_text(metric, estimate.value),
                interval=interval_text(metric, estimate),
                mark=significance_mark(estimate),
                p_value=_p_value_text(estimate),
                best=record.name in column.best,
                number=estimate.value,
                bar=_bar(estimate, scale),
            )
        )
    return figures


def _scale(table: Table, metric: str) -> tuple[float, float]:
    """Compute the range of a metric's bars: at least from 0 to 1."""
    ends = [
        end
        for (_, _, each), estimate in table.figures.items()
        if each == metric
        for end in (estimate.value, *(estimate.interval or ()))
    ]
    return min(0.0, *ends), max(1.0, *ends)


def _bar(estimate: Estimate, scale: tuple[float, float]) -> Bar:
    low, high = scale

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    left, right = sorted((place(0.0), place(estimate.value)))
    if estimate.interval is None:
        return Bar(left, right - left, place(estimate.value), 0.0)
    begin, end = map(place, estimate.interval)
    return Bar(left, right - left, begin, end - begin)


def _reason(table: Table, defense: str, prompt_set: str) -> str:
    """Explain why a column has no figure of a defense, as far as the table tells."""
    if defense == ORIGINAL:
        return COMPARED_WITH
    notes = [note for note in table.notes if note.startswith(f"{prompt_set}: ")]
    return "; ".join(notes) or UNKNOWN


def _p_value_text(estimate: Estimate) -> str:
    if estimate.p_value is None:
        return ""
    return "p < 0.001" if estimate.p_value < 0.001 else f"p = {estimate.p_value:.3f}"
