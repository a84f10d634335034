"""The figures that the site shows are those that the README quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safegen.report.entries import entries_of, read_entries
from safegen.report.tables import read_summary

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured"
COLUMNS = (
    ("explicit", "removal"), ("implicit", "removal"), ("benign", "retention"),
    ("near-miss", "near-miss-retention"), ("explicit", "context-retention"),
    ("benign", "clip-score"),
)  # fmt: skip


@pytest.fixture(scope="module")
def quoted() -> dict[tuple[str, str, str], str]:
    """Cells of the README's table by defense, prompt set and metric."""
    lines = re.findall(
        r"^\| \**([\w-]+)\** \| (.* \| \d\.\d{3}) \|$", (ROOT / "README.md").read_text(), re.M
    )
    return {
        (defense, *column): cell.replace("−", "-")
        for defense, cells in lines
        for column, cell in zip(COLUMNS, cells.split(" | "), strict=True)
    }


def text(metric: str, *values: float | None) -> list[str]:
    return [
        f"{value:.3f}" if metric == "clip-score" else f"{100 * value:.0f}"
        for value in values
        if value is not None
    ]


def test_those_of_others_are_quoted(quoted: dict[tuple[str, str, str], str]) -> None:
    entries = read_entries(MEASURED / "others.csv")
    for each in entries:
        cell = quoted[each.defense, each.prompt_set, each.metric]
        numbers = re.findall(r"(?<![\d.])-?[\d.]+", cell)
        assert numbers == text(each.metric, each.value, each.low, each.high), each
    assert len({each.defense for each in entries}) == 10


def test_the_worst_of_the_hardenings_is_quoted(quoted: dict[tuple[str, str, str], str]) -> None:
    runs = [
        {(each.prompt_set, each.metric): each.value for each in entries_of(table, path.stem)
         if each.defense == "safegen"}
        for path in sorted(MEASURED.glob("*.json"))
        for table in [read_summary(path)]
    ]  # fmt: skip
    assert len(runs) == 2
    for place, metric in COLUMNS:
        (worst,) = text(metric, min(run[place, metric] for run in runs))
        assert quoted["safegen", place, metric].split(" ")[0] == worst
