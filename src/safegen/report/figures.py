"""The summary's figures in words and rows, for the page and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safegen.report.plots import RateRow
from safegen.report.summary import CONTEXT
from safegen.statistics.intervals import Interval

Summary = Mapping[str, Any]

MEASURES: tuple[tuple[str, str], ...] = (
    ("unsafe_rate", "pictures flagged unsafe"),
    ("removal_rate", "removal rate"),
    ("retention", "everything asked for is drawn"),
    ("retention_relative", "drawn, relative to the original"),
    ("clip_score", "CLIP score, benign prompts"),
    ("clip_score_relative", "CLIP score, relative to the original"),
    ("frechet_distance", "Fréchet distance to real pictures"),
)
"""Keys of the summary that are figures, in the order of the table, with what they are called."""
_SHARES = ("unsafe_rate", "removal_rate", "retention", "retention_relative", "clip_score_relative")


@dataclass(frozen=True)
class Headline:
    """A figure for the top of the page: its label, its value as text, a note below it, and
    whether it is a removal rate, which is what the page is about."""

    label: str
    value: str
    note: str
    removal: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure as text, and its interval as text; both empty where there is none."""

    value: str = ""
    interval: str = ""


@dataclass(frozen=True)
class FigureRow:
    """A row of the table of figures: what, on which prompts, for both models, on how many."""

    measure: str
    over: str
    original: Cell
    hardened: Cell
    count: str


def percent(share: float) -> str:
    """A share as text with one decimal; only all of it is written 100 %, and only none 0 %."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    rounded = round(100 * share, 1)
    if 0 < share < 1:
        rounded = min(max(rounded, 0.1), 99.9)
    return f"{rounded:.1f} %".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """A duration as text, to the second."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def words(summary: Summary, key: str) -> str:
    """A key of the summary as it stands in a sentence."""
    return f"beside {summary['concept']}" if key == CONTEXT else key.replace("_", "-")


def headlines(summary: Summary) -> list[Headline]:
    """The figures for the top of the page: removal first, then what it did to the rest."""
    original = summary["original"]
    found = [
        Headline(
            f"removed on {words(summary, key)} prompts", percent(rate), _range_note(summary, key)
        )
        for key, rate in summary["removal_rate"].items()
    ]
    found += [
        Headline(
            f"still drawn, {words(summary, key)}",
            percent(rate),
            _before(original["retention"][key]),
        )
        for key, rate in summary.get("retention", {}).items()
    ]
    for key, label in (("clip_score", "CLIP score"), ("frechet_distance", "Fréchet distance")):
        if key in summary:
            found.append(Headline(label, _number(key, summary[key]), _before(original[key], key)))
    whole = f"whole run {duration(summary['total_seconds'])}"
    return [*found, Headline("for the edit", duration(summary["edit_seconds"]), whole)]


def rate_rows(summary: Summary) -> list[RateRow]:
    """The rows of the plot: shares of flagged pictures on unsafe sets, then retention."""
    rows = []
    for measure, keys, good in (
        ("unsafe_rate", summary["removal_rate"], False),
        ("retention", summary.get("retention", {}), True),
    ):
        for key in keys:
            label = f"{'drawn' if good else 'unsafe'}, {words(summary, key)}"
            original, hardened = (
                (side[measure][key], Interval(*intervals[measure][key]))
                for side, intervals in _both_sides(summary)
            )
            rows.append(RateRow(label, original, hardened, good))
    return rows


def figure_rows(summary: Summary) -> list[FigureRow]:
    """All figures of the summary."""
    return [row for key, measure in MEASURES for row in _rows_of(summary, key, measure)]


def _rows_of(summary: Summary, key: str, measure: str) -> Iterator[FigureRow]:
    if key not in summary:
        return
    groups = summary[key] if isinstance(summary[key], Mapping) else {None: None}
    for group in groups:
        original, hardened = (_cell(*side, key, group) for side in _both_sides(summary))
        over = words(summary, group) if group else ""
        yield FigureRow(measure, over, original, hardened, _count(summary, key, group))


def _both_sides(summary: Summary) -> tuple[tuple[Summary, Summary], tuple[Summary, Summary]]:
    """Figures and intervals of the original, then of the hardened model."""
    intervals = summary["intervals"]
    return (summary["original"], intervals["original"]), (summary, intervals)


def _cell(side: Summary, intervals: Summary, key: str, group: str | None) -> Cell:
    value, interval = side.get(key), intervals.get(key)
    if group is not None:
        value, interval = (value or {}).get(group), (interval or {}).get(group)
    if value is None:
        return Cell()
    return Cell(_number(key, value), _range(key, interval) if interval else "")


def _count(summary: Summary, key: str, group: str | None) -> str:
    counts = summary["counts"]
    if key.startswith("retention"):
        return str(counts["retention"][group])
    if group is not None:
        return str(counts["prompts"][group])
    if key == "frechet_distance":
        return f"{counts['clip_score']} against {counts['real_pictures']}"
    return str(counts["clip_score"])


def _number(key: str, value: float) -> str:
    return percent(value) if key in _SHARES else f"{value:.3f}"


def _range(key: str, interval: Interval | list[float]) -> str:
    low, high = (_number(key, end) for end in interval)
    return f"{low.removesuffix(' %')} – {high}"


def _range_note(summary: Summary, key: str) -> str:
    confidence = percent(summary["intervals"]["confidence"]).replace(".0", "")
    return f"{confidence} CI {_range('removal_rate', summary['intervals']['removal_rate'][key])}"


def _before(value: float, key: str = "retention") -> str:
    return f"original {_number(key, value)}"
