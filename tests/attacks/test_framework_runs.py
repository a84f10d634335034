"""Attacks in an evaluation: their columns, what they leave behind, and runs that go on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.evaluation.executors import ExecutorOptions
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.results.records import Table
from safegen.results.store import CellKey

Make = Callable[..., EvaluationSettings]

pytestmark = pytest.mark.usefixtures("attack_package")


def but_for_dates(table: Table) -> Table:
    """A table without when its run was made."""
    kept = {key: value for key, value in table.provenance.items() if key != "run"}
    return replace(table, provenance=kept)


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_an_attack_is_a_column_that_is_made_anew_against_each_defense(
    make_settings: Make,
    records_of: Callable[..., Any],
    tmp_path: Path,
    log: Path,
    prompt_files: Path,
) -> None:
    plain = (f"plain=own:{prompt_files}/goals.txt",)
    settings = make_settings({"attacks": ("words", "less=words:1", "still")}, unsafe=plain)
    table = evaluate(settings, tmp_path / "run")
    assert [(r.name, r.role) for r in table.prompt_sets] == [
        (name, "unsafe") for name in ("plain", "words", "less", "still")
    ]
    records = records_of(tmp_path / "run", settings)
    assert len(records) == 2 * 4 * 5
    for defense in ("none", "sld-max"):
        found = {
            name: [records[CellKey(defense, name), position][2] for position in range(5)]
            for name in ("plain", "words", "less", "still")
        }
        assert found["plain"] == [None] * 5
        for name, most in (("words", 3), ("less", 1)):
            for number, each in enumerate(found[name]):
                assert each is not None
                assert each.text == f"a knife and a cat {number}" + " and" * each.pictures
                assert 1 <= each.pictures <= most
                assert each.score == 0.9 or each.pictures == most
                assert (each.passes, each.details) == (7, {"ending": each.pictures})
            flagged = [each.score > 0 for each in found[name] if each]
            assert table.figures[defense, name, "asr"].value == np.mean(flagged)
            spent = [each.pictures for each in found[name] if each]
            assert table.figures[defense, name, "pictures"].value == np.mean(spent)
            assert table.figures[defense, name, "passes"].value == 7
    assert {line[1] for line in lines(log)} == {"none", "sld-max"}
    begun = [line for line in lines(log) if line[0] == "begin"]
    ended = [line for line in lines(log) if line[0] == "end"]
    assert len(begun) == 6  # once for each attack and defense, though a cell has three batches
    assert {line[2] for line in begun} == {"2"}  # examples
    assert 5 <= len(ended) <= 6  # the last one may stay open
    # What an attack changes, it changes for itself: plain pictures are those of a run without.
    without = replace(settings, attack=None, unsafe=plain, defenses=("sld-max", "negative-prompt"))
    evaluate(without, tmp_path / "without")
    more = replace(settings, defenses=("sld-max", "negative-prompt"))
    evaluate(more, tmp_path / "run")
    expected = records_of(tmp_path / "without", without)
    assert len(expected) == 15
    assert expected.items() <= records_of(tmp_path / "run", more).items()


def test_what_is_there_is_not_attacked_again(
    make_settings: Make, tmp_path: Path, log: Path
) -> None:
    settings = make_settings()
    table = evaluate(settings, tmp_path / "run")
    done = len(lines(log))
    assert evaluate(settings, tmp_path / "run") == table
    assert len(lines(log)) == done
    more = make_settings({"attacks": ("words", "less=words:1")}, defenses=("sld-max", "sld-weak"))
    evaluate(more, tmp_path / "run")
    added = [line[1:3] for line in lines(log)[done:] if line[0] == "task"]
    assert [name for name, _ in added].count("sld-weak") == 10
    assert len(added) == 5 + 5 + 10


def test_findings_made_differently_are_not_mixed(
    make_settings: Make, records_of: Callable[..., Any], tmp_path: Path, prompt_files: Path
) -> None:
    settings = make_settings()
    evaluate(settings, tmp_path / "run")
    before = records_of(tmp_path / "run", settings)
    assert settings.attack is not None
    for changes, message in (
        ({"judge": "odd:2"}, 'attacker has judge.version "1" there and "2" here'),
        ({"clip": "lab"}, "attacker has clip null there"),
        ({"examples": None}, "the prompt set words has examples"),
        ({"goals": f"own:{prompt_files}/goals.txt,count=4"}, "the prompt set words has options"),
        ({"attacks": ("words=words:2",)}, "attack.settings.endings 3 there and 2 here"),
        ({"attacks": ("words=still",)}, 'attack.access "black box" there and "white box"'),
    ):
        changed = replace(settings, attack=replace(settings.attack, **changes))  # type: ignore[arg-type]
        with pytest.raises(SafegenError, match=message) as caught:
            evaluate(changed, tmp_path / "run")
        assert "--out" in str(caught.value)
    other = replace(settings, concept=Concept("cats", "a cat"), defenses=("none",))
    with pytest.raises(SafegenError, match=r'attacker has concept\.name "knives" there'):
        evaluate(other, tmp_path / "run")
    assert records_of(tmp_path / "run", settings) == before


def test_an_attack_that_cannot_be_made_says_so_with_its_defense(
    make_settings: Make, tmp_path: Path, log: Path
) -> None:
    said = "broken:x against none: cannot be made on such a model; use another"
    with pytest.raises(SafegenError, match=said):
        evaluate(make_settings({"attacks": ("broken:x",)}), tmp_path / "one")
    with pytest.raises(ValueError, match="0 findings of 2 tasks"):
        evaluate(make_settings({"attacks": ("broken:few",)}), tmp_path / "two")
    assert "task" not in log.read_text()
    with pytest.raises(SafegenError, match="careless: left the model's weights changed"):
        evaluate(make_settings({"attacks": ("careless",)}), tmp_path / "three")


def test_an_attack_that_never_succeeds_is_a_result(make_settings: Make, tmp_path: Path) -> None:
    table = evaluate(make_settings(observers=("detector:blind",)), tmp_path)
    assert table.figures["none", "words", "asr"].value == 0
    assert ("sld-max", "words", "removal") not in table.figures
    assert table.notes == ()


def test_what_is_wrong_is_said_before_anything_is_attacked(
    make_settings: Make, tmp_path: Path, log: Path
) -> None:
    for attack, message in (
        ({"attacks": ("wards",)}, "Did you mean 'words'"),
        ({"attacks": ("words", "words")}, "'words' is there twice"),
        ({"goals": "own:nowhere.txt"}, "nowhere.txt"),
        ({"examples": "own:nowhere.txt"}, "nowhere.txt"),
        ({"judge": "nobody"}, "unknown name 'nobody' among detectors"),
        ({"clip": "./nowhere"}, "cannot be loaded as a CLIP model"),
    ):
        with pytest.raises(SafegenError, match=message):
            evaluate(make_settings(attack), tmp_path / "run")
    with pytest.raises(SafegenError, match="no attack to make"):
        AttackSettings((), "own:goals.txt", "odd")
    with pytest.raises(SafegenError, match="what it is after"):
        make_settings(concept=None)
    assert log.read_text() == ""


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_findings_do_not_depend_on_who_makes_them(
    make_settings: Make, records_of: Callable[..., Any], tmp_path: Path, executor: str
) -> None:
    if executor == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    settings = make_settings({"attacks": ("words", "still")})
    one = evaluate(settings, tmp_path / "one")
    other = evaluate(settings, tmp_path / "other", executor, ExecutorOptions(workers=2))
    assert records_of(tmp_path / "one", settings) == records_of(tmp_path / "other", settings)
    assert but_for_dates(one) == but_for_dates(other)


KILLED = """
import sys
from pathlib import Path
from safegen.attacks import ATTACKS, create_attack
from safegen.concepts import Concept, ConceptPrompts
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.models.sampling import SamplingSettings

if __name__ == "__main__":
    evaluate(eval(sys.argv[1]), Path(sys.argv[2]))
"""


def stored(folder: Path) -> list[tuple[str, int]]:
    """Defense and position of the findings of a run that goes on."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/store.sqlite?mode=ro", uri=True)) as opened:
            return opened.execute("SELECT defense, position FROM findings").fetchall()
    except sqlite3.OperationalError:
        return []  # there is none yet


def test_a_run_killed_in_the_middle_goes_on_and_attacks_nothing_twice(
    make_settings: Make, records_of: Callable[..., Any], tmp_path: Path, log: Path
) -> None:
    settings = make_settings({"attacks": ("slow",)}, batch=1)
    process = subprocess.Popen([sys.executable, "-c", KILLED, repr(settings), str(tmp_path / "a")])
    while process.poll() is None and len(stored(tmp_path / "a")) < 6:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = stored(tmp_path / "a")
    assert 6 <= len(kept) < 10
    log.write_text("")
    table = evaluate(settings, tmp_path / "a")
    again = [(line[1], int(line[2].removeprefix("own-")) - 1) for line in lines(log)
             if line[0] == "task"]  # fmt: skip
    assert sorted([*again, *kept]) == sorted(
        (defense, position) for defense in ("none", "sld-max") for position in range(5)
    )
    assert but_for_dates(evaluate(settings, tmp_path / "b")) == but_for_dates(table)
    assert records_of(tmp_path / "a", settings) == records_of(tmp_path / "b", settings)
