"""Output of an evaluation's table: terminal, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from safegen.errors import SafegenError
from safegen.evaluation.scoring import known_metrics
from safegen.files import write_atomically
from safegen.report.budgets import budget_lines
from safegen.report.columns import Column, columns, shown_columns
from safegen.report.controls import control_lines
from safegen.report.measures import (
    BEST,
    STARS,
    TEST,
    interval_text,
    significance_mark,
    value_text,
)
from safegen.report.wording import literal
from safegen.results.finite import check_finite
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import CONFIDENCE, Interval

SCHEMA_VERSION = 1
KIND = "evaluation"
CSV_HEAD = ("defense", "prompt_set", "role", "metric", "value", "low", "high", "p_value", "count")
_HEAD = "defense"
_TITLE_WIDTH = 13
_GAP = 3
LEGEND = f"{CONFIDENCE:.0%} confidence intervals; {STARS} {TEST}; bold: {BEST}"


def write_outputs(table: Table, folder: Path) -> None:
    """Write ``results.csv``, ``table.md`` and, last, ``summary.json``.

    Raises:
        SafegenError: a figure is not finite, or a file cannot be written.
    """
    summary = summary_of(table)
    write_csv(table, folder / "results.csv")
    write_atomically(folder / "table.md", markdown_table(table))
    _write_json(summary, folder / "summary.json")


def write_summary(table: Table, path: Path) -> None:
    """Write the whole table as JSON, which ``read_summary`` reads.

    Raises:
        SafegenError: a figure is not finite, or the file cannot be written.
    """
    _write_json(summary_of(table), path)


def summary_of(table: Table) -> dict[str, Any]:
    """Convert the whole table to JSON values; figures by defense, prompt set and metric.

    Raises:
        SafegenError: a figure is not finite.
    """
    metrics = known_metrics()
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for (defense, prompt_set, metric), estimate in table.figures.items():
        by_set = figures.setdefault(defense, {})
        by_set.setdefault(prompt_set, {})[metric] = _values(estimate)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "confidence": CONFIDENCE,
        "defenses": [asdict(record) for record in table.defenses],
        "prompt_sets": [asdict(record) for record in table.prompt_sets],
        "metrics": {
            name: {
                "title": metrics[name].title,
                "higher_is_better": metrics[name].higher_is_better,
                "is_share": metrics[name].is_share,
            }
            for name in table.metrics
        },
        "figures": figures,
        "notes": list(table.notes),
        "provenance": table.provenance,
    }
    return dict(check_finite(summary))


def read_summary(path: Path) -> Table:
    """Read the table that ``write_summary`` of this or an earlier version wrote.

    Raises:
        SafegenError: the file is missing, is no evaluation's summary, or is of a later version.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["kind"] != KIND:
            raise ValueError(f"it is of the kind {summary['kind']!r}")
        if summary["schema_version"] > SCHEMA_VERSION:
            raise ValueError(f"its schema version is {summary['schema_version']}, a later one")
        return _table(summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SafegenError(
            f"{path}: cannot be read as the summary of an evaluation ({error}); "
            "make it with this version of 'safegen evaluate'"
        ) from error


def write_csv(table: Table, path: Path) -> None:
    """Write one row per figure; missing values are empty."""
    roles = {record.name: record.role for record in table.prompt_sets}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for column in columns(table):
        for defense in table.defenses:
            if estimate := column.estimates.get(defense.name):
                place = (defense.name, column.prompt_set, roles[column.prompt_set], column.name)
                writer.writerow([*place, *_values(estimate).values()])
    write_atomically(path, buffer.getvalue())


def markdown_table(table: Table) -> str:
    """Write the table in Markdown, with a caption on how it was measured."""
    shown = shown_columns(table)
    head = [f"{each.metric.title}, {literal(each.prompt_set)}" for each in shown]
    rows = [
        [literal(row.name), *(_markdown_cell(each, row.name) for each in shown)]
        for row in table.defenses
    ]
    lines = [[_HEAD, *head], ["---", *["---:"] * len(shown)], *rows]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    told = literal(f"{caption(table)} {LEGEND[0].upper()}{LEGEND[1:]}.")
    notes = "".join(f"\n{literal(note)}\n" for note in _notes(table))
    return f"{body}\n\n{told}\n{notes}"


def _notes(table: Table) -> list[str]:
    return [*budget_lines(table), *control_lines(table), *table.notes]


def caption(table: Table) -> str:
    """Describe the measurement in sentences: model, sampling, seeds, observers, pictures."""
    return " ".join(f"{sentence}." for sentence in _caption(table.provenance, table))


@dataclass(frozen=True)
class TerminalTable:
    """Table for rich: one row per defense, with as many columns beside each other as fit."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich's console protocol."""
        rest = shown_columns(self.table)
        while rest:
            count = self._fitting(rest, options.max_width)
            yield self._part(rest[:count])
            rest = rest[count:]
        yield Text(LEGEND, style="dim")
        yield from map(Text, _notes(self.table))

    def _fitting(self, shown: list[Column], width: int) -> int:
        """Count the columns that fit, at least one."""
        names = [_HEAD, *(row.name for row in self.table.defenses)]
        room = width - max(map(len, names)) - 2 * _GAP
        for count, column in enumerate(shown):
            cells = [_terminal_cell(column, row.name).plain for row in self.table.defenses]
            lines = "\n".join([_head(column), *cells]).split("\n")
            room -= max(map(len, lines)) + _GAP
            if room < 0:
                return max(1, count)
        return len(shown)

    def _part(self, shown: list[Column]) -> RichTable:
        part = RichTable(_HEAD, box=box.SIMPLE)
        for column in shown:
            part.add_column(Text(_head(column)), justify="right", no_wrap=True)
        for row in self.table.defenses:
            part.add_row(Text(row.name), *(_terminal_cell(each, row.name) for each in shown))
        return part


def table_to_rich(table: Table) -> TerminalTable:
    """Return the table for ``rich.print``."""
    return TerminalTable(table)


def _head(column: Column) -> str:
    return "\n".join([*textwrap.wrap(column.metric.title, _TITLE_WIDTH), column.prompt_set])


def _terminal_cell(column: Column, defense: str) -> Text:
    estimate = column.estimates.get(defense)
    if estimate is None:
        return Text("–")
    value = value_text(column.name, estimate.value) + significance_mark(estimate)
    style = "bold" if defense in column.best else ""
    return Text.assemble((value, style), "\n", (interval_text(column.name, estimate), "dim"))


def _markdown_cell(column: Column, defense: str) -> str:
    estimate = column.estimates.get(defense)
    if estimate is None:
        return "–"
    value = value_text(column.name, estimate.value)
    shown = f"**{value}**" if defense in column.best else value
    stars, interval = literal(significance_mark(estimate)), interval_text(column.name, estimate)
    return f"{shown}{stars}{f' ({interval})' if interval else ''}"


def _caption(provenance: Mapping[str, Any], table: Table) -> Iterator[str]:
    if model := provenance.get("model"):
        yield f"Model: {model['name']}"
    if sampling := provenance.get("sampling"):
        own = [r.name for r in table.prompt_sets if r.identity.get("own_guidance")]
        besides = f" ({', '.join(own)}: as the file says)" if own else ""
        seed, samples = provenance.get("seed"), provenance.get("samples", 1)
        seeds = "the prompts' own seeds" if seed is None else f"seeds from base {seed}"
        yield (
            f"Sampling: {sampling['steps']} steps of {sampling['sampler']} at guidance "
            f"{sampling['guidance_scale']:g}{besides}, {samples} a prompt, {seeds}"
        )
    if observers := provenance.get("observers"):
        told = (f"{name} ({_observer(settings)})" for name, settings in observers.items())
        yield f"Observers: {', '.join(told)}"
    if attacker := provenance.get("attacker"):
        yield f"Attacker's judge: {_observer(attacker['judge'])}"
    counts = {
        record.name: max(
            (found.count for key, found in table.figures.items() if key[1] == record.name),
            default=0,
        )
        for record in table.prompt_sets
    }
    yield f"Pictures: {', '.join(f'n = {count} ({name})' for name, count in counts.items())}"


def _observer(settings: Mapping[str, Any]) -> str:
    """Write in a few words what identifies an observer."""
    words = [str(settings[key]) for key in ("name", "model", "net", "version") if key in settings]
    if "threshold" in settings:
        words.append(f"threshold {settings['threshold']:g}")
    hashes = (settings.get(key) for key in ("file_hash", "weights_hash"))
    return ", ".join([*words, *(f"weights {digest[:8]}" for digest in hashes if digest)])


def _values(estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {
        "value": estimate.value,
        "low": low,
        "high": high,
        "p_value": estimate.p_value,
        "count": estimate.count,
    }


def _table(summary: Mapping[str, Any]) -> Table:
    return Table(
        defenses=tuple(DefenseRecord(**record) for record in summary["defenses"]),
        prompt_sets=tuple(PromptSetRecord(**record) for record in summary["prompt_sets"]),
        metrics=tuple(summary["metrics"]),
        figures={
            (defense, prompt_set, metric): _estimate(**values)
            for defense, by_set in summary["figures"].items()
            for prompt_set, by_metric in by_set.items()
            for metric, values in by_metric.items()
        },
        provenance=summary["provenance"],
        notes=tuple(summary["notes"]),
    )


def _estimate(
    value: float, low: float | None, high: float | None, p_value: float | None, count: int
) -> Estimate:
    interval = None if low is None or high is None else Interval(low, high)
    return Estimate(value, interval, p_value, count)


def _write_json(summary: Mapping[str, Any], path: Path) -> None:
    write_atomically(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")
