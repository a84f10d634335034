"""Leaderboard: the entries of many runs as one self-contained page, a table for each measurement.

Figures that were measured differently never share a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from safegen.report.columns import ATTACK_METRIC
from safegen.report.entries import CHANGES, Entry
from safegen.report.leaderboard_pictures import Thumbnail
from safegen.report.measures import measure, value_text
from safegen.report.standing import SAFEGEN
from safegen.report.templating import render_page
from safegen.results.records import ORIGINAL

SHOWN = (
    "removal", "part-removal", "outlines-left", ATTACK_METRIC, "retention", "near-miss-retention",
    "context-retention", "clip-score", "lpips", "frechet-inception", "frechet-clip",
)  # fmt: skip
"""Metrics of the page, from left to right; under an attack its success rate alone. The CSV has
all."""
ColumnKey = tuple[str, str, str]
RowKey = tuple[str, str]
Pictures = Mapping[RowKey, Sequence[Thumbnail]]
"""Pictures by origin and defense."""


@dataclass(frozen=True)
class Head:
    """Column.

    Attributes:
        metric: title of the metric.
        prompt_set: name of the prompt set.
        attack: side and access of the attack, or what tells apart sets of one name.
        higher_is_better: whether higher figures are better.
    """

    metric: str
    prompt_set: str
    attack: str
    higher_is_better: bool


@dataclass(frozen=True)
class Figure:
    """Figure as text; all empty without one.

    Attributes:
        value, interval: the figure, and the ends of its interval.
        count: number of items behind it.
        number: the figure as a number, to sort by; None without one.
        told: interval, count, date and command, in one line.
    """

    value: str = ""
    interval: str = ""
    count: int = 0
    number: float | None = None
    told: str = ""


@dataclass(frozen=True)
class Row:
    """Defense in one run.

    Attributes:
        defense, changes, origin, date, command: see ``Entry``.
        kind: ``original``, ``safegen`` or ``baseline``.
        figures: one per column.
        pictures: some of its pictures.
    """

    defense: str
    changes: str
    origin: str
    date: str
    command: str
    kind: str
    figures: tuple[Figure, ...]
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Board:
    """Table of figures that compare."""

    model: str
    measured: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]


def render_leaderboard(entries: Sequence[Entry], pictures: Pictures) -> str:
    """Render the page as text.

    Args:
        entries: entries of all runs and files.
        pictures: pictures of rows; those of unsafe prompts must be blurred already.
    """
    built = boards(entries, pictures)
    return render_page(
        "leaderboard",
        ("evaluation", "leaderboard"),
        boards=built,
        models=sorted({board.model for board in built}),
        changes=[each for each in CHANGES if each != "nothing"],
        rows=sum(len(board.rows) for board in built),
        cells=len(entries),
    )


def boards(entries: Iterable[Entry], pictures: Pictures) -> list[Board]:
    """Build a table for each model and measurement, in the order of the entries."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.model, entry.measured), []).append(entry)
    made = (_board(*key, group, pictures) for key, group in groups.items())
    return [board for board in made if board.heads]


def _board(model: str, measured: str, entries: list[Entry], pictures: Pictures) -> Board:
    keys = _columns(entries)
    rows: dict[RowKey, dict[ColumnKey, Entry]] = {}
    for entry in entries:
        rows.setdefault((entry.origin, entry.defense), {})[_column(entry)] = entry
    shown = ((key, cells) for key, cells in rows.items() if cells.keys() & keys.keys())
    return Board(
        model,
        measured,
        tuple(keys.values()),
        tuple(_row(cells, list(keys), pictures.get(key, ())) for key, cells in shown),
    )


def _columns(entries: list[Entry]) -> dict[ColumnKey, Head]:
    """Heads of the shown columns by key: metric by metric, each in the order of the entries."""
    places = {(entry.prompt_set, entry.prompts) for entry in entries}
    twice = {name for name, _ in places if sum(other == name for other, _ in places) > 1}
    found: dict[ColumnKey, Head] = {}
    for metric in SHOWN:
        for entry in entries:
            if entry.metric != metric or (entry.attack and metric != ATTACK_METRIC):
                continue
            apart = entry.prompts if entry.prompt_set in twice else ""
            detail = ", ".join(filter(None, (entry.attack, apart)))
            about = measure(metric)
            head = Head(about.title, entry.prompt_set, detail, about.higher_is_better)
            found.setdefault(_column(entry), head)
    return found


def _column(entry: Entry) -> ColumnKey:
    return entry.metric, entry.prompt_set, entry.prompts


def _row(
    cells: Mapping[ColumnKey, Entry], keys: list[ColumnKey], pictures: Sequence[Thumbnail]
) -> Row:
    one = next(iter(cells.values()))
    figures = tuple(_figure(cells[key]) if key in cells else Figure() for key in keys)
    return Row(
        one.defense,
        one.changes,
        one.origin,
        max(entry.date for entry in cells.values()),
        one.command,
        _kind(one.defense),
        figures,
        tuple(pictures),
    )


def _figure(entry: Entry) -> Figure:
    value = value_text(entry.metric, entry.value)
    ends = [each for each in (entry.low, entry.high) if each is not None]
    interval = "–".join(value_text(entry.metric, each).removesuffix(" %") for each in ends)
    told = [
        f"95 % interval {interval}" if interval else "no interval",
        f"n = {entry.count}",
        entry.date,
        entry.command or "command not told",
    ]
    return Figure(value, interval, entry.count, entry.value, "; ".join(told))


def _kind(defense: str) -> str:
    if defense == ORIGINAL:
        return "original"
    ours = any(part.partition("-")[0] == SAFEGEN for part in defense.split("+"))
    return "safegen" if ours else "baseline"
