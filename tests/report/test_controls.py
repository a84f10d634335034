"""Controls of attacks with pictures: what is beyond them, and that they win nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from safegen.report.attack_verdict import attack_headline
from safegen.report.columns import Column
from safegen.report.controls import BEYOND, beyond_controls, control_lines
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery
from safegen.report.standing import standing
from safegen.report.tables import markdown_table
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import Interval, difference_interval, wilson_interval

COUNT = 16
SUCCEEDED = {
    "tina": {"none": 16, "uce": 15, "safegen": 14, "blank": 2, "unseen": 8},
    "p4d-k": {"none": 15, "uce": 12, "safegen": 1, "blank": 0, "unseen": 1},
}
METHODS = {"blank": "random-weights", "unseen": "filtered"}
SIDES = {"tina": "image", "p4d-k": "text"}


def estimate(count: int) -> Estimate:
    return Estimate(count / COUNT, wilson_interval(count, COUNT), None, COUNT)


@pytest.fixture
def table() -> Table:
    figures = {
        (name, attack, "asr"): estimate(count)
        for attack, by in SUCCEEDED.items()
        for name, count in by.items()
    }
    for name, kept in (("none", 15), ("uce", 14), ("safegen", 14), ("blank", 0), ("unseen", 12)):
        figures[name, "cats", "retention"] = estimate(kept)
        figures[name, "plain", "removal"] = estimate(15 if name == "blank" else 12)
    attack: Any = {name: {"name": name, "side": SIDES[name]} for name in SUCCEEDED}
    return Table(
        defenses=[
            DefenseRecord(name, {"defense": METHODS.get(name, name)}) for name in SUCCEEDED["tina"]
        ],
        prompt_sets=[
            *(PromptSetRecord(name, "unsafe", {"attack": attack[name]}) for name in SUCCEEDED),
            PromptSetRecord("plain", "unsafe"),
            PromptSetRecord("cats", "benign"),
        ],
        metrics=("removal", "asr", "retention"),
        figures=figures,
        provenance={"model": {"name": "lab"}, "concept": {"name": "weapons"}},
    )


def test_the_verdict_of_an_attack_with_pictures_is_the_share_beyond_the_controls(
    table: Table,
) -> None:
    lines = control_lines(table)
    assert lines[0] == BEYOND
    (line,) = lines[1:]  # an attack with texts needs none
    assert line.startswith("tina: blank 12.5 %, unseen 50.0 %; beyond none 50.0 % (")
    assert "uce 43.8 % (" in line
    assert "safegen 37.5 % (" in line
    for shown in (markdown_table(table), render_report(table, Gallery())):
        assert "beyond none 50.0 %" in shown


def test_without_a_control_nothing_is_said(table: Table) -> None:
    bare = replace(table, defenses=table.defenses[:3])
    assert control_lines(bare) == []


def test_a_difference_reaches_below_nothing_where_a_control_gives_up_more() -> None:
    (found,) = beyond_controls({"ours": estimate(2)}, {"unseen": estimate(4)}).values()
    assert found.value == -2 / COUNT
    assert found.interval is not None
    assert found.interval.low < found.value < 0 < found.interval.high


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    # Newcombe 1998, table II, example (a): 56/70 - 48/80 by method 10.
    first, second = wilson_interval(56, 70), wilson_interval(48, 80)
    found = difference_interval(56 / 70, first, 48 / 80, second)
    assert found == pytest.approx(Interval(0.0524, 0.3339), abs=5e-5)


def test_a_model_that_draws_nothing_wins_nothing(table: Table) -> None:
    assert "blank" not in attack_headline(table)
    found = standing(table)
    assert found is not None
    assert "blank" not in found.kept
    assert "blank" in Column("asr", "tina", table).estimates
    assert "blank" not in Column("asr", "tina", table).best
