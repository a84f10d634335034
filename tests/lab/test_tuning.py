"""Tuning of baselines: equal budgets, the choice, and a sweep with a tiny budget end to end."""

from __future__ import annotations

import csv
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from safegen.defenses import create_defense
from safegen.defenses.erasing import create_eraser
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.lab.tuning import SWEEPS, Measured, Point, Sweep, choose, points_of
from safegen.results.records import Estimate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BUDGET = 12
SWEEP = Sweep("x", ("x",), "x", {"a": ("", "1", "2"), "b": ("3", "4")})


def test_every_baseline_gets_as_many_settings_and_its_published_ones_first() -> None:
    for sweep in SWEEPS:
        specs = sweep.specs(BUDGET)
        assert len(set(specs)) == BUDGET, sweep.name
        assert tuple(specs[: len(sweep.published)]) == sweep.published
        assert sweep.specs(BUDGET + 1)[:BUDGET] == specs
    assert len(points_of(SWEEPS, BUDGET)) == BUDGET * len(SWEEPS)
    assert set(SWEEP.specs(99)) == {"x", "x,b=3", "x,b=4", "x,a=1,b=3", "x,a=1,b=4"} | {
        "x,a=2,b=3", "x,a=2,b=4",
    }  # fmt: skip


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.name)
def test_every_setting_of_a_grid_is_known_to_its_baseline(sweep: Sweep) -> None:
    for values in ("first", "last"):
        end = 0 if values == "first" else -1
        options = {key: choices[end] for key, choices in sweep.grid.items() if choices[end]}
        spec = sweep.base + "".join(f",{key}={value}" for key, value in options.items())
        if sweep.eraser:
            create_eraser(spec)
        else:
            create_defense(spec, LAB_WEAPONS, LAB)
    point = Point(sweep, sweep.base, True)
    assert point.name.startswith(f"{sweep.name}.")


def found(spec: str, removal: float, benign: float, near_miss: float) -> Measured:
    point = Point(SWEEP, spec, spec in SWEEP.published)
    return Measured(point, Estimate(removal), (Estimate(benign), Estimate(near_miss)))


def test_the_most_removal_that_keeps_enough_is_chosen() -> None:
    points = [
        found("x", 0.3, 0.99, 0.95), found("a", 0.6, 0.97, 0.90), found("b", 0.9, 0.96, 0.95),
        found("c", 0.8, 0.99, 0.89), found("d", 0.6, 0.98, 0.92),
    ]  # fmt: skip
    chosen = choose(points)
    assert (chosen.tuned.point.spec, chosen.at_floors) == ("d", True)
    assert chosen.published.point.spec == "x"


def test_where_nothing_keeps_enough_the_published_retention_is_the_measure() -> None:
    points = [
        found("x", 0.3, 0.90, 0.80), found("a", 0.7, 0.90, 0.81), found("b", 0.9, 0.89, 0.99),
    ]  # fmt: skip
    chosen = choose(points)
    assert (chosen.tuned.point.spec, chosen.at_floors) == ("a", False)
    assert choose(points[:1]).tuned == choose(points[:1]).published == points[0]
    assert choose(points, floors=(0.8, 0.8)).tuned == points[2]


def test_a_sweep_goes_from_settings_to_what_evaluate_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tool: Any = importlib.import_module("tune_baselines")
    few = [
        replace(sweep, published=("esd-u,iterations=1,steps=2",), grid={"iterations": ("1",)})
        if sweep.name == "esd-u"
        else sweep
        for sweep in SWEEPS
    ]
    monkeypatch.setattr(tool, "SWEEPS", few)
    out = tmp_path / "tuning"
    order = ["--budget", "1", "--prompts", "4", "--methods", "esd-u", "negative-prompt"]
    order += ["--workers", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["tune_baselines.py", *order])
    tool.main()
    said = capsys.readouterr().out
    assert "2 settings of 2 baselines, 4 x 4 prompts each: 48 pictures" in said
    table = (out / "table.md").read_text()
    assert table in said
    assert "| negative-prompt | published |" in table
    assert "| esd-u | tuned |" in table
    with (out / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["spec"] for row in rows] == ["negative-prompt", "esd-u,iterations=1,steps=2"]
    specs = yaml.safe_load((out / "tuned.yaml").read_text())["defense"]
    assert [spec.partition("=")[0] for spec in specs] == ["negative-prompt-tuned", "esd-u-tuned"]
    for spec in specs:
        create_defense(spec.partition("=")[2], LAB_WEAPONS, LAB)
    made = {path: path.stat().st_mtime_ns for path in out.glob("patches/*")}
    tool.main()
    assert "drawing" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.glob("patches/*")} == made
