"""What is made of an evaluation under attack: tables, prompts that were found, and documents."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from safegen.attacks import ATTACKS, create_attack
from safegen.cli._showing import gallery_of
from safegen.errors import SafegenError
from safegen.evaluation.found_prompts import Saving, check_saving, save_prompts
from safegen.evaluation.plan import planned_prompt_sets
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import EvaluationSettings
from safegen.lab.attack_table import COUNT, lab_attack_settings, lab_attacks
from safegen.lab.profile import LAB
from safegen.lab.table import OBSERVERS
from safegen.prompts import create_prompt_set
from safegen.report.evaluation import render_report
from safegen.report.tables import (
    markdown_table,
    read_summary,
    summary_of,
    table_to_rich,
    write_outputs,
)
from safegen.results.cells import findings
from safegen.results.records import Table
from safegen.results.store import CellKey, ResultsStore

Make = Callable[..., EvaluationSettings]

pytestmark = pytest.mark.usefixtures("attack_package")


@pytest.fixture(scope="module")
def attacked(
    build_settings: Make, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EvaluationSettings, Table, Path]]:
    """A run of two attacks on two defenses."""
    folder = tmp_path_factory.mktemp("attacked")
    settings = build_settings({"attacks": ("words", "still")}, defenses=("sld-max", "sld-weak"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_LOG", str(folder / "log.txt"))
        yield settings, evaluate(settings, folder / "run"), folder / "run"


def test_tables_show_success_rates_and_what_they_cost(
    attacked: tuple[EvaluationSettings, Table, Path], tmp_path: Path
) -> None:
    settings, table, folder = attacked
    console = Console(width=100, record=True)
    console.print(table_to_rich(table))
    shown = console.export_text()
    written = markdown_table(table)
    means = [table.figures[name, "words", "pictures"].value for name in ("none", "sld-max",
                                                                        "sld-weak")]  # fmt: skip
    ends = dict.fromkeys(f"{end:.1f}".removesuffix(".0") for end in (min(means), max(means)))
    cost = f"words: text, black box, {' to '.join(ends)} pictures and 7 passes."
    for text in (" ".join(shown.split()), written):
        assert cost in text
        assert "still: image, white box, 1 picture and 0 passes." in text
        assert "removal" not in text  # that is relative to the attack on the original
    assert written.splitlines()[0] == "| defense | ASR, words | ASR, still |"
    assert "Attacker's judge: odd" in written
    write_outputs(table, tmp_path)
    assert summary_of(read_summary(tmp_path / "summary.json")) == summary_of(table)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = {row["metric"] for row in rows if row["prompt_set"] == "words"}
    assert {"asr", "removal", "pictures", "passes"} <= metrics
    page = render_report(table, gallery_of(folder, settings))
    assert "Under attack" in page
    assert f"text, black box; {' to '.join(ends)} pictures and 7 passes" in page
    with ResultsStore(folder) as store:
        found = findings(store, CellKey("sld-max", "words"))[0]
    assert f'title="{found.text}"' in page


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_found_prompts_are_a_prompt_set_that_says_where_it_comes_from(
    attacked: tuple[EvaluationSettings, Table, Path],
    records_of: Callable[..., Any],
    tmp_path: Path,
    suffix: str,
) -> None:
    settings, table, folder = attacked
    saving = Saving(tmp_path / f"found{suffix}")
    check_saving(saving, settings)
    count = save_prompts(saving, settings, folder)
    content = saving.path.read_bytes()
    told: list[str] = []
    assert save_prompts(saving, settings, folder, say=told.append) == count
    assert told == []  # nothing was drawn again
    assert saving.path.read_bytes() == content
    names = ["none", "sld-max", "sld-weak"]
    flagged = sum(round(5 * table.figures[name, "words", "asr"].value) for name in names)
    assert count == flagged > 0
    prompts = list(create_prompt_set(f"own:{saving.path}"))
    assert len(prompts) == count
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in saving.path.read_text().splitlines()]
    else:
        with saving.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    records = records_of(folder, settings)
    for prompt, row in zip(prompts, rows, strict=True):
        assert (row["attack"], float(row["score"]), int(row["passes"])) == ("words", 0.9, 7)
        found = [
            each[2]
            for (cell, _), each in records.items()
            if cell == (row["defense"], "words") and each[2] and each[2].text == prompt.text
        ]
        assert len(found) == 1
        assert prompt.text.startswith(row["goal"])
        assert prompt.seed == int(row["seed"])
        assert prompt.guidance == float(row["guidance"]) == 5.0
        assert all(len(row[f"{what}_hash"]) == 64 for what in ("attack", "model", "defense"))
        drawn = row["drawn_with"] if suffix == ".jsonl" else row["drawn_with"].split()
        past = row["transfers_to"] if suffix == ".jsonl" else row["transfers_to"].split()
        assert drawn == [name for name in names if name != row["defense"]]
        assert set(past) <= set(drawn)


def test_transfer_is_measured_as_an_evaluation_of_the_file_would(
    attacked: tuple[EvaluationSettings, Table, Path], tmp_path: Path
) -> None:
    settings, _, folder = attacked
    saving = Saving(tmp_path / "found.jsonl", ("sld-weak",))
    save_prompts(saving, settings, folder)
    rows = [json.loads(line) for line in saving.path.read_text().splitlines()]
    again = replace(
        settings, attack=None, unsafe=(f"found=own:{saving.path}",), defenses=("sld-weak",)
    )
    table = evaluate(again, tmp_path / "again")
    others = [row for row in rows if row["defense"] != "sld-weak"]
    assert all(row["drawn_with"] == ["sld-weak"] for row in others)
    assert all(row["drawn_with"] == [] for row in rows if row["defense"] == "sld-weak")
    with ResultsStore(tmp_path / "again") as store:
        query = "SELECT position, record FROM observations WHERE defense = 'sld-weak'"
        flags = {at: bool(json.loads(seen)["detections"])
                 for at, seen in store.connection.execute(query)}  # fmt: skip
    assert table.figures["sld-weak", "found", "asr"].value == np.mean(list(flags.values()))
    for position, row in enumerate(rows):
        if row in others:
            assert (row["transfers_to"] == ["sld-weak"]) == flags[position]


def test_prompts_that_cannot_be_saved_are_refused_before_the_run(
    make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(SafegenError, match=r"written as \.csv or \.jsonl"):
        Saving(tmp_path / "found.txt")
    saving = Saving(tmp_path / "found.csv")
    with pytest.raises(SafegenError, match="no prompts can be found by still"):
        check_saving(saving, make_settings({"attacks": ("still",)}))
    with pytest.raises(SafegenError, match="no defense 'uce' is in the run"):
        check_saving(replace(saving, transfer_to=("uce",)), make_settings())
    blind = make_settings(observers=("detector:blind",))
    evaluate(blind, tmp_path / "run")
    assert save_prompts(saving, blind, tmp_path / "run") == 0
    assert not saving.path.exists()


def test_the_labs_table_has_every_attack_of_the_package(tmp_path: Path) -> None:
    specs = lab_attacks()
    assert {spec.partition(":")[0] for spec in specs} == set(ATTACKS.built_in())
    assert "words" not in specs  # that is of another package
    identities = [create_attack(spec, LAB).identity for spec in specs]
    sides = [identity.side for identity in identities]
    assert sides == sorted(sides, key=["text", "image", "weights"].index)
    assert identities[0].name == "random-tokens"
    settings = lab_attack_settings(tmp_path, 3)
    names = [each.record.name for each in planned_prompt_sets(settings)]
    assert names == ["explicit", "benign", "near-miss", *(each.name for each in identities)]
    assert settings.observers == (f"detector:{LAB.judge}", *OBSERVERS)
    assert settings.attack is not None
    assert settings.attack.judge == LAB.judge
    assert settings.batch >= COUNT  # goals of an attack are worked on together
    assert settings.defenses[:2] == ("random-weights", "filtered")  # the controls
    with pytest.raises(SafegenError, match=r"a \+ joins defenses"):
        lab_attack_settings(tmp_path / "a+b")


def test_the_documents_list_every_attack_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "docs" / "attack.md").read_text()
    table = text.partition("## The attacks")[2].partition("\n## ")[0]
    heads = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for head in heads for name in re.findall(r"`([\w-]+)", head)}
    assert set(ATTACKS.built_in()) <= listed
