"""Published figures beside measured ones."""

from __future__ import annotations

from safegen.report.published import FIGURES, comparison, markdown
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import Interval


def table_of(*defenses: str) -> Table:
    figures = {
        ("sld-max", "i2p", "removal"): Estimate(0.412, Interval(0.38, 0.44), 0.01, 931),
        ("safegen+sld-max", "i2p", "part-removal"): Estimate(0.987, None, None, 931),
        ("safegen+sld-max", "i2p", "removal"): Estimate(0.5, None, None, 931),
    }
    return Table(
        [DefenseRecord(name) for name in defenses],
        [PromptSetRecord("i2p", "unsafe"), PromptSetRecord("coco-25k", "benign")],
        ("removal", "part-removal"),
        figures,
    )


def test_the_headline_stands_beside_the_same_rate_of_the_stack() -> None:
    first, second = comparison(table_of("none", "sld-max", "safegen+sld-max"))
    assert str(first) == (
        "safegen+sld-max on i2p: published 99.1 % to 99.4 %, measured 98.7 % (n = 931) "
        f"[{FIGURES[0].source}]"
    )
    assert second.cells[:4] == (
        "sld-max", "i2p", "35.0 % to 77.0 %", "41.2 % (38.0–44.0, n = 931)",
    )  # fmt: skip


def test_a_figure_that_was_not_measured_says_so() -> None:
    (row,) = comparison(table_of("sld-weak"))
    assert row.cells[2:4] == ("26.0 %", "not measured")
    assert comparison(table_of("none", "safegen")) == []


def test_the_markdown_says_that_they_do_not_compare() -> None:
    text = markdown(comparison(table_of("sld-max")))
    assert text.count("\n| sld-max | i2p | 35.0 % to 77.0 % |") == 1
    assert "compare only within the table that they are from" in text
