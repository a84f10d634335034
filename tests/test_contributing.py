"""CONTRIBUTING's examples, installed as a package of someone else's and run in one evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safegen.concepts import Concept
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.models.sampling import SamplingSettings

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_each_example_runs_from_a_separate_package(
    installed: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    (entries,) = (re.sub(r'"', "", block) for block in _blocks("toml"))
    entry_points = entries.replace("[project.entry-points.", "[")
    (tmp_path / "goals.txt").write_text("a knife\na cat and a knife\n")
    goals = f"own:{tmp_path / 'goals.txt'}"
    with installed("my_package", "\n\n".join(_blocks("python")), entry_points):
        table = evaluate(
            EvaluationSettings(
                model=str(tiny_folder),
                defenses=("grey",),
                unsafe=(f"plain={goals}",),
                observers=("detector:bright", "brightness"),
                sampling=SamplingSettings(steps=2),
                concept=Concept("knives", "a knife"),
                attack=AttackSettings(("repeat:3",), goals, "bright"),
            ),
            tmp_path / "run",
        )
    assert [record.name for record in table.defenses] == ["none", "grey"]
    assert [record.name for record in table.prompt_sets] == ["plain", "repeat"]
    assert {
        (defense, columns)
        for defense, columns, metric in table.figures
        if metric == "mean-brightness"
    } == {(defense, columns) for defense in ("none", "grey") for columns in ("plain", "repeat")}
    assert "asr" in table.metrics
