"""The tool that makes the lab's adversarial set, and the set's datasheet."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from safegen.defenses.esd import EsdSettings, EsdTraining
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.prompts import ADVERSARIAL_FILE, ATTACKED, adversarial_prompts
from safegen.models.loading import load_pipeline
from safegen.prompts._records import CSV

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tool as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("make_adversarial_set")


def found(prompt: str, defense: str, goal: str) -> dict[str, Any]:
    """A found prompt as ``found_prompts`` gives it, shortened."""
    return {
        "id": "x",
        "prompt": prompt,
        "goal": goal,
        "attack": "sneakyprompt-n",
        "defense": defense,
        "passes": 0,
    }


def test_the_filter_has_to_let_a_prompt_pass_and_each_is_there_once(tool: Any) -> None:
    first, second = tool.goals_from(100, 2)
    rows = tool.chosen(
        [
            found("a visitor", "none", second.text),
            found("a visitor", "esd-x", second.text),
            found("a fine axe", "none", first.text),
            found("a guest", "esd-x", first.text),
        ],
        [first, second],
    )
    assert [(row["id"], row["prompt"], row["goal_id"]) for row in rows] == [
        ("lab-sneakyprompt-n-esd-x-0100", "a guest", first.id),
        ("lab-sneakyprompt-n-none-0101", "a visitor", second.id),
    ]
    assert [row["asked"] for row in rows] == ["+".join(each.asked) for each in (first, second)]


def test_the_datasheet_has_the_figures_of_the_file(tool: Any, tmp_path: Path) -> None:
    text = tool.DATASHEET.read_text()
    assert f"{tool.BEGIN}{tool.figures(ADVERSARIAL_FILE)}{tool.END}" in text
    copy = tmp_path / "sheet.md"
    copy.write_text(f"before\n{tool.BEGIN}old\n{tool.END}after\n")
    tool.describe(ADVERSARIAL_FILE, copy)
    assert copy.read_text() == (
        f"before\n{tool.BEGIN}{tool.figures(ADVERSARIAL_FILE)}{tool.END}after\n"
    )


def test_figures_count_what_was_drawn(tool: Any, tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_text(
        "attack,defense,goal_id,pictures,drawn_with,transfers_to\n"
        "n,none,g1,4,esd-x sld-max,sld-max\n"
        "n,none,g2,8,esd-x sld-max,esd-x sld-max\n"
        "n,esd-x,g1,12,none sld-max,\n"
    )
    lines = tool.figures(file).splitlines()
    assert lines[0].endswith("drawn by esd-x | drawn by sld-max | drawn by none |")
    assert lines[2:] == [
        "| n | none | 2 | 2 | 6.0 | 50% | 100% | all |",
        "| n | esd-x | 1 | 1 | 12.0 | all | 0% | 0% |",
    ]


def test_a_set_is_made_and_not_made_again(tool: Any, tmp_path: Path) -> None:
    training = EsdTraining(
        load_pipeline("lab"), LAB_WEAPONS, EsdSettings(iterations=1, steps=2, batch=1)
    )
    list(training.run())
    patch = tmp_path / "esd.safetensors"
    training.patch().save(patch)
    goals = tool.goals_from(100, 1)
    settings = tool.search_settings(str(patch), goals, tmp_path / "run")
    phases: list[str] = []
    arguments = (settings, goals, tmp_path / "run", tmp_path / "set.csv", 1)
    count = tool.make(*arguments, lambda at: phases.append(at.phase))
    content = (tmp_path / "set.csv").read_bytes()
    assert "drawing" in phases
    phases.clear()
    assert tool.make(*arguments, lambda at: phases.append(at.phase)) == count
    assert phases == []
    assert (tmp_path / "set.csv").read_bytes() == content
    rows = [record.fields for record in CSV.records(tmp_path / "set.csv")]
    assert len(rows) == count >= 1
    for kind in ("sneakyprompt-n", "sneakyprompt-p"):
        for name in ATTACKED:
            read = adversarial_prompts(kind, file=tmp_path / "set.csv", found_on=name)
            asked = [row for row in rows if (row["attack"], row["defense"]) == (kind, name)]
            assert [each.text for each in read] == [row["prompt"] for row in asked]
    assert {name for row in rows for name in row["drawn_with"].split()} >= {"safety-filter"}
