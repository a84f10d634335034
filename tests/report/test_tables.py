"""The table in the terminal, as JSON and CSV, and in Markdown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from safegen.errors import SafegenError
from safegen.evaluation.scoring import known_metrics
from safegen.report.columns import columns
from safegen.report.tables import (
    markdown_table,
    read_summary,
    summary_of,
    table_to_rich,
    write_outputs,
    write_summary,
)
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import Interval

PROVENANCE = {
    "model": {"name": "lab", "hashes": {"unet": "ab"}},
    "sampling": {"steps": 16, "sampler": "dpm++", "guidance_scale": 5.0},
    "samples": 1,
    "seed": None,
    "observers": {
        "detector": {"name": "lab", "version": "1.0", "file_hash": "0123456789ab", "threshold": 0.5}
    },
}


def table(**changes: Any) -> Table:
    figures = {
        ("none", "i2p", "asr"): Estimate(0.9, Interval(0.8, 0.95), None, 40),
        ("sld-max", "i2p", "removal"): Estimate(0.5, Interval(0.4, 0.6), 0.01, 40),
        ("safegen", "i2p", "removal"): Estimate(0.999, Interval(0.95, 1.0), 0.0001, 40),
        ("sld-max", "i2p", "asr"): Estimate(0.45, Interval(0.3, 0.6), 0.2, 40),
        ("safegen", "i2p", "asr"): Estimate(0.001, Interval(0.0, 0.05), 0.0001, 40),
        ("none", "coco", "clip-score"): Estimate(0.31, Interval(0.3, 0.32), None, 25),
        ("sld-max", "coco", "clip-score"): Estimate(0.30, Interval(0.29, 0.31), 0.5, 25),
        ("safegen", "coco", "clip-score"): Estimate(0.29, None, None, 25),
    }
    made = Table(
        defenses=(DefenseRecord("none"), DefenseRecord("sld-max"), DefenseRecord("safegen")),
        prompt_sets=(
            PromptSetRecord("i2p", "unsafe", {"own_guidance": True}),
            PromptSetRecord("coco", "benign"),
        ),
        metrics=("removal", "asr", "clip-score"),
        figures=figures,
        provenance=PROVENANCE,
        notes=("own: no removal rate",),
    )
    return replace(made, **changes)


def printed(width: int, of: Table | None = None) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table_to_rich(of or table()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_every_figure() -> None:
    text = printed(120)
    for shown in (
        "50.0 %*",
        "40.0–60.0",
        "99.9 %***",
        "95.0–100",
        "45.0 %",
        "0.310",
        "own: no rem",
    ):
        assert shown in text
    assert "45.0 %*" not in text
    assert "[/" not in text


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_a_narrow_terminal_gets_more_tables_and_loses_nothing(width: int) -> None:
    text = printed(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    values = ("50.0 %*", "99.9 %***", "90.0 %", "45.0 %", "0.1 %***", "0.310", "0.300", "0.290")
    assert [value for value in values if value not in text] == []
    heads = [line for line in lines if line.split()[:1] == ["defense"]]
    assert (len(heads) == 1) == (width >= 80)


def test_the_best_defense_is_bold() -> None:
    console = Console(width=120, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(table_to_rich(table()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for value, bold in (("99.9 %***", True), ("50.0 %*", False), ("0.1 %***", True),
                        ("0.300", True), ("0.310", False), ("0.290", False)):  # fmt: skip
        assert (f"\x1b[1m{value}" in text) == bold


def test_markdown_is_a_table_with_a_caption() -> None:
    head, rule, *rows, empty, caption, gap, note = markdown_table(table()).rstrip().split("\n")
    assert head == "| defense | removal, i2p | ASR, i2p | CLIP score, coco |"
    assert rule == "| --- | ---: | ---: | ---: |"
    assert rows == [
        "| none | – | 90.0 % (80.0–95.0) | 0.310 (0.300–0.320) |",
        "| sld-max | 50.0 %\\* (40.0–60.0) | 45.0 % (30.0–60.0) | **0.300** (0.290–0.310) |",
        "| safegen | **99.9 %**\\*\\*\\* (95.0–100) | **0.1 %**\\*\\*\\* (0–5.0) | 0.290 |",
    ]
    assert (empty, gap) == ("", "")
    assert note == "own: no removal rate"
    for words in (
        "Model: lab.",
        "16 steps of dpm++ at guidance 5 (i2p: as the file says), 1 a prompt, the prompts' own",
        "Observers: detector (lab, 1.0, threshold 0.5, weights 01234567).",
        "n = 40 (i2p), n = 25 (coco)",
        "95% confidence intervals; \\* p \\< 0.05, \\*\\* p \\< 0.01",
    ):
        assert words in caption


def test_csv_has_a_row_a_figure(tmp_path: Path) -> None:
    write_outputs(table(), tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table().figures)
    assert rows[0] == {
        "defense": "sld-max",
        "prompt_set": "i2p",
        "role": "unsafe",
        "metric": "removal",
        "value": "0.5",
        "low": "0.4",
        "high": "0.6",
        "p_value": "0.01",
        "count": "40",
    }
    assert rows[-1]["low"] == rows[-1]["p_value"] == ""


def test_the_summary_nests_the_figures(tmp_path: Path) -> None:
    write_outputs(table(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == summary_of(table())
    assert (summary["schema_version"], summary["kind"]) == (1, "evaluation")
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "p_value": 0.01, "count": 40}
    assert summary["figures"]["sld-max"]["i2p"]["removal"] == figure
    assert summary["provenance"] == PROVENANCE
    assert (tmp_path / "table.md").read_text() == markdown_table(table())


shares = st.floats(0, 1)
estimates = st.builds(
    Estimate,
    shares,
    st.none() | st.builds(Interval, shares, shares),
    st.none() | shares,
    st.integers(0, 10**6),
)


@settings(max_examples=10)
@given(st.data())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True))
    metrics = tuple(data.draw(st.lists(st.sampled_from(list(known_metrics())), unique=True)))
    keys = [(name, "i2p", metric) for name in names for metric in metrics]
    made = table(
        defenses=tuple(DefenseRecord(name, {"a": [1]}) for name in names),
        metrics=metrics,
        figures={key: data.draw(estimates) for key in keys},
    )
    path = tmp_path_factory.mktemp("summary") / "summary.json"
    write_summary(made, path)
    assert read_summary(path) == made
    assert len(columns(made)) == len(metrics)
    assert len(markdown_table(made).split("\n| ")) >= len(names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    broken = table(figures={("safegen", "i2p", "removal"): Estimate(value)})
    with pytest.raises(SafegenError, match=r"figures\.safegen\.i2p\.removal\.value is"):
        write_outputs(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        ("[]", "list indices"),
        ('{"schema_version": 1, "model": "lab"}', "kind"),
        ('{"schema_version": 9, "kind": "evaluation"}', "a later one"),
        ('{"schema_version": 1, "kind": "evaluation"}', "defenses"),
    ],
)
def test_other_files_are_no_summaries(content: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SafegenError, match=reason):
        read_summary(path)


def test_names_cannot_break_the_table() -> None:
    name = "a|b [red]*"
    made = table(
        defenses=(DefenseRecord(name),),
        figures={(name, "i2p", "removal"): Estimate(0.5)},
    )
    assert name in printed(80, made)
    assert "| a\\|b \\[red\\]\\* | 50.0 % |" in markdown_table(made)
