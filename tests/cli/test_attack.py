"""``safegen attack``: one command from a model to its attack table, and its found prompts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from safegen.attacks import ATTACKS
from safegen.cli import app
from safegen.errors import SafegenError

PACKAGE = """
from contextlib import contextmanager

from safegen.attacks import Attack, AttackIdentity
from safegen.attacks.search import Drawn, search


class Politely(Attack):
    'Asks for what it wants, politely.'

    identity = AttackIdentity("politely", "text", "black box", {})

    @contextmanager
    def against(self, target):
        def strike(tasks):
            def draw(rows, number):
                texts = [f"{tasks[i].text} please" for i in rows]
                return list(map(Drawn, target.draw([tasks[i] for i in rows], texts), texts))

            return search(target, tasks, draw)

        yield strike
"""
ENTRIES = "[safegen.attacks]\npolitely = polite_attack:Politely\n"
LAB = ("lab", "--attack", "politely", "--count", "6", "--batch", "6")


@pytest.fixture(scope="module", autouse=True)
def attack_package(installed: Any) -> Iterator[None]:
    """An installed package with an attack that succeeds on the lab's model."""
    with installed("polite_attack", PACKAGE, ENTRIES):
        yield


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of an attack on one defense and on none, and the prompts that it found."""
    folder = tmp_path_factory.mktemp("attack")
    run, found = folder / "run", folder / "found.jsonl"
    arguments = ("--defense", "filtered", "--save-prompts", str(found), "--out", str(run))
    result = invoke("attack", *LAB, *arguments)
    assert result.exit_code == 0, result.output
    assert "found prompts: " in result.output
    return run, found


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_the_table_of_an_attack_is_that_of_an_evaluation(attacked: tuple[Path, Path]) -> None:
    run, _ = attacked
    for name in ("summary.json", "results.csv", "table.md", "report.html", "store.sqlite"):
        assert (run / name).stat().st_size > 0
    summary = summary_of(run)
    (column,) = summary["prompt_sets"]
    assert column["identity"]["attack"]["side"] == "text"
    assert column["identity"]["options"]["count"] == 6
    assert column["identity"]["examples"]["options"]["split"] == "attack"
    assert summary["provenance"]["batch"] == 6
    assert summary["provenance"]["attacker"]["judge"]["name"] == "lab+lab:second"
    assert len(summary["provenance"]["attacker"]["clip"]["weights_hash"]) == 64
    before, after = (summary["figures"][name]["politely"]["asr"] for name in ("none", "filtered"))
    assert before["value"] > 0.5 > after["value"]
    again = invoke("attack", *LAB, "--defense", "filtered", "--out", str(run))
    assert again.exit_code == 0
    assert "politely" in again.output
    assert "drawing" not in again.output


def test_a_bound_on_an_attack_can_be_required(attacked: tuple[Path, Path]) -> None:
    run, _ = attacked
    command = ("attack", *LAB, "--defense", "filtered", "--out", str(run))
    assert invoke(*command, "--require", "filtered:asr@politely<=0.5").exit_code == 0
    missed = invoke(*command, "--require", "asr@politely<=-1")
    assert missed.exit_code == 1
    assert "missed by filtered on politely" in missed.output


def test_found_prompts_are_evaluated_like_any_others(
    attacked: tuple[Path, Path], tmp_path: Path
) -> None:
    run, found = attacked
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    figures = summary_of(run)["figures"]
    flagged = [round(6 * figures[name]["politely"]["asr"]["value"]) for name in figures]
    assert len(rows) == sum(flagged)
    arguments = ("--detector", "lab", "--batch", "6", "--defense", "filtered")
    result = invoke(
        "evaluate", "lab", "--unsafe", f"own:{found}", *arguments, "--out", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    again = summary_of(tmp_path)["figures"]
    assert again["none"]["own"]["asr"]["value"] > 0.8  # what succeeded succeeds again
    past = sum(row["transfers_to"] == ["filtered"] for row in rows if row["defense"] == "none")
    own = sum(row["defense"] == "filtered" for row in rows)
    assert past <= round(len(rows) * again["filtered"]["own"]["asr"]["value"]) <= past + own


def test_attacks_stand_beside_what_must_stay(attacked: tuple[Path, Path]) -> None:
    run, _ = attacked
    plain = ("--unsafe", "plain=lab:explicit,count=3", "--benign", "cats=lab:benign,count=3")
    arguments = ("--defense", "filtered", *plain, "--objects", "lab", "--out", str(run))
    result = invoke("attack", *LAB, *arguments)
    assert result.exit_code == 0, result.output
    table = (run / "table.md").read_text()
    head = "| defense | removal, plain | ASR, plain | ASR, politely |"
    assert table.startswith(head)
    assert "retention, cats" in table
    assert "CLIP score, cats" in table
    page = (run / "report.html").read_text()
    assert "Under attack" in page
    assert "What goes against what stays" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lab",), "no attack to make"),
        (("--attack", "politely"), "a model, or --preset lab"),
        (("./mine", "--preset", "lab"), r"the preset lab evaluates the model lab, not \./mine"),
        (("--preset", "paper"), "unknown preset 'paper'; known: lab"),
        (("lab", "--attack", "sneekyprompt:p"), "Did you mean 'sneakyprompt'"),
        (("lab", "--attack", "politely:5"), "too many positional arguments"),
        (("lab", "--attack", "politely", "--attack", "politely"), "'politely' is there twice"),
        (("lab", "--attack", "politely", "--goals", "lab:rude"), "unknown kind 'rude'"),
        (
            ("lab", "--attack", "politely", "--goals", "lab:explicit", "--count", "3"),
            "--count is for a model's usual goals",
        ),
        (("./mine", "--attack", "politely"), "an attack needs prompts that say what"),
        (("./mine", "--attack", "politely", "--goals", "x.txt"), "an attack needs a detector"),
        (
            ("./mine", "--attack", "politely", "--goals", "x.txt", "--detector", "nudenet"),
            "--concept-text",
        ),
        (("lab", "--attack", "politely", "--judge", "nobody"), "'nobody' among detectors"),
        (("lab", "--attack", "politely", "--require", "asr@x<=0"), "no prompt set 'x'"),
        (("lab", "--attack", "politely", "--save-prompts", "x.txt"), "written as .csv or .jsonl"),
        (("lab", "--attack", "politely", "--transfer-to", "none"), "--save-prompts"),
        (
            ("lab", "--attack", "politely", "--save-prompts", "x.csv", "--transfer-to", "uce"),
            "no defense 'uce' is in the run",
        ),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SafegenError, match=message) as caught:
        invoke("attack", *arguments, "--out", str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "images").exists()


def test_the_names_of_all_attacks_are_listed_lightly() -> None:
    code = (
        "import sys, atexit; sys.argv = ['safegen', 'attack', '--list']; "
        "atexit.register(lambda: print('torch' in sys.modules)); "
        "from safegen.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, heavy = done.stdout.split()
    assert names == [name for name in ATTACKS.names() if name in names]
    assert {"politely", "random-tokens"} <= set(names)
    assert heavy == "False"
