"""Entries of a leaderboard: from runs, and from files of others with a checked schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import SafegenError
from safegen.report.entries import (
    Entry,
    check_distinct,
    csv_text,
    entries_of,
    read_entries,
    without_folders,
)
from safegen.results.records import Table

ROW: dict[str, Any] = {
    "model": "sd-1.4", "defense": "esd-u", "prompt_set": "i2p", "role": "unsafe",
    "metric": "removal", "value": 0.83, "count": 931, "date": "2026-01-31",
    "measured": "NudeNet 3.4.2 at 0.25",
}  # fmt: skip


def written(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


def test_a_run_gives_an_entry_for_each_figure(table: Table) -> None:
    told = {**table.provenance, "run": {"started": "2026-02-03T04:05:06+00:00"}}
    told["command"] = "safegen evaluate lab --defense esd:/home/me/esd.safetensors --out runs/x"
    entries = list(entries_of(Table(**{**vars(table), "provenance": told}), "x"))
    assert len(entries) == len(table.figures)
    found = {(each.defense, each.prompt_set, each.metric): each for each in entries}
    one, figure = found["uce", "explicit", "removal"], table.figures["uce", "explicit", "removal"]
    assert (one.value, one.count, (one.low, one.high)) == (
        figure.value, figure.count, figure.interval,
    )  # fmt: skip
    assert (one.model, one.date, one.origin) == ("lab", "2026-02-03", "x")
    assert one.command == "safegen evaluate lab --defense esd:esd.safetensors --out runs/x"
    assert one.measured.startswith("25 steps of ddim at guidance 5.0, 1 a prompt, detector lab 1.2")
    with pytest.raises(SafegenError, match="x: does not tell when it ran"):
        list(entries_of(table, "x"))


def test_runs_that_measured_otherwise_are_told_apart(table: Table) -> None:
    def measured(**changes: Any) -> str:
        told = {**table.provenance, "run": {"started": "2026-02-03"}, **changes}
        return next(entries_of(Table(**{**vars(table), "provenance": told}), "x")).measured

    assert measured() == measured(command="another")
    others = {"model": {"name": "lab", "hashes": {}}, "seed": 1, "concept": None}
    assert len({measured(), *(measured(**{key: value}) for key, value in others.items())}) == 4


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    entries = [
        Entry(**ROW, low=0.8, high=0.9, changes="weights+sampling", command='a, "b"'),
        Entry(**{**ROW, "metric": "asr", "attack": "text, white box"}, origin="runs"),
    ]
    path = tmp_path / "board.csv"
    path.write_text(csv_text(entries))
    first, second = read_entries(path)
    assert second == entries[1]
    assert asdict(first) == {**asdict(entries[0]), "origin": "board.csv"}
    assert read_entries(written(tmp_path / "rows.json", {**ROW, "low": None}))[0].count == 931


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valeu": 1}, "unknown column 'valeu'; did you mean 'value'"),
        ({"value": None}, "value is missing; every row needs it"),
        ({"value": "much"}, "value must be a number, not 'much'"),
        ({"value": True}, "value must be a number, not True"),
        ({"value": float("nan")}, "must be finite numbers"),
        ({"value": 83}, "removal is a share, so at most 1: 0.97 for 97 %"),
        ({"low": 0.9, "high": 1}, "low, value and high must ascend"),
        ({"low": 0.1}, "low and high go together"),
        ({"count": 0.5}, "count must be a whole number"),
        ({"count": 0}, "count must be 1 or more"),
        ({"date": "31.1.2026"}, "date must be like 2026-01-31"),
        ({"role": "evil"}, "role must be unsafe or benign or near-miss"),
        ({"metric": "removel"}, "metric 'removel' is unknown; did you mean 'removal'"),
        ({"changes": "weights+all"}, "changes must be of nothing, weights"),
        ({"model": 7}, "model must be a text, not 7"),
        ({"defense": "a\nb"}, "defense must be one line"),
        ({"command": "x" * 2001}, "command must be one line of at most 2000"),
    ],
)
def test_a_row_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "rows.json", ROW, {**ROW, **changes})
    with pytest.raises(SafegenError, match=rf"rows\.json row 2: .*{message}"):
        read_entries(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.txt", "", "come as .csv or .json"),
        ("rows.json", "{", "cannot be read"),
        ("rows.json", "[]", "holds no list of rows"),
        ("rows.json", '{"model": 1}', "holds no list of rows"),
        ("rows.json", "[3]", "row 1: is no object"),
        ("rows.csv", "model,defense\nsd,esd,more\n", "row 1: unknown column None"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SafegenError, match=message):
        read_entries(tmp_path / name)


def test_two_figures_for_one_place_are_refused() -> None:
    check_distinct([Entry(**ROW), Entry(**ROW, prompts="others"), Entry(**ROW, origin="x")])
    with pytest.raises(SafegenError, match="x: gives removal of esd-u on i2p twice"):
        check_distinct([Entry(**ROW, origin="x"), Entry(**{**ROW, "value": 0.5}, origin="x")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--defense esd:/a/b.c/esd.safetensors,x=1", "--defense esd:esd.safetensors,x=1"),
        ("CompVis/stable-diffusion-v1-4 runs/table", "CompVis/stable-diffusion-v1-4 runs/table"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        (r"C:\Users\me\model ~/models/x", "model x"),
    ],
)
def test_folders_of_absolute_paths_are_cut(text: str, expected: str) -> None:
    assert without_folders(text) == expected
