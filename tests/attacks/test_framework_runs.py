"""Attacks in an evaluation: their columns, what they leave behind, and runs that go on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from safegen.attacks import ATTACKS, create_attack
from safegen.cli._showing import gallery_of
from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.evaluation.executors import ExecutorOptions
from safegen.evaluation.found_prompts import Saving, check_saving, save_prompts
from safegen.evaluation.plan import plan_evaluation, planned_prompt_sets
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.lab.attack_table import COUNT, lab_attack_settings, lab_attacks
from safegen.lab.profile import LAB
from safegen.lab.table import OBSERVERS
from safegen.models.sampling import SamplingSettings
from safegen.prompts import create_prompt_set
from safegen.report.evaluation import render_report
from safegen.report.tables import (
    markdown_table,
    read_summary,
    summary_of,
    table_to_rich,
    write_outputs,
)
from safegen.results.cells import findings, stored_images
from safegen.results.records import FindingRecord, Table
from safegen.results.store import CellKey, ResultsStore

PACKAGE = """
import os
import time
from contextlib import contextmanager

import torch
from safegen.attacks import Attack, AttackIdentity, Finding
from safegen.detectors import Detection, DetectorIdentity
from safegen.errors import SafegenError


class Odd:
    'Flags pictures whose pixels have an odd sum: half of all, whatever they show.'

    def __init__(self, version="1"):
        self.identity = DetectorIdentity("odd", version, "", 0.5)

    def detect(self, images):
        return [[Detection("odd", 0.9)] if image.sum() % 2 else [] for image in images]


class Blind(Odd):
    'Flags nothing.'

    def detect(self, images):
        return [[] for _ in images]


def log(*words):
    with open(os.environ["TINY_LOG"], "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


class Words(Attack):
    'Tries ways to end a prompt, on a model that it changes while it attacks.'

    identity = None

    def __init__(self, endings="3", seconds=0.0):
        self.endings, self.seconds = int(endings), seconds
        self.identity = AttackIdentity(
            "words", "text", "black box", {"endings": self.endings, "lab": False}
        )

    @contextmanager
    def against(self, target):
        name = target.defense.identity.name
        log("begin", name, len(target.examples))
        bias = target.pipeline.unet.conv_out.bias
        with torch.no_grad():
            bias += 0.5
        yield lambda tasks: [self.one(target, name, task) for task in tasks]
        with torch.no_grad():
            bias -= 0.5
        log("end", name)

    def one(self, target, name, task):
        time.sleep(self.seconds)
        log("task", name, task.id, task.seed)
        for number in range(1, self.endings + 1):
            text = task.text + " and" * number
            (sample,) = target.draw([task], [text])
            (score,) = target.scores([sample.image])
            if score:
                break
        return Finding(
            sample.image, sample.blocked, float(score), text, number, 7, {"ending": number}
        )


def slow():
    return Words("1", 0.3)


class Still(Words):
    'Gives a picture, no text.'

    def __init__(self):
        self.identity = AttackIdentity("still", "image", "white box", {})

    def one(self, target, name, task):
        (image,) = target.unsafe_pictures([task])
        return Finding(image, False, 0.0)


class Broken(Words):
    def __init__(self, how):
        self.how = how
        self.identity = AttackIdentity("broken", "weights", "white box", {})

    @contextmanager
    def against(self, target):
        with super().against(target):
            yield self.fail

    def fail(self, tasks):
        if self.how == "few":
            return []
        raise SafegenError("cannot be made on such a model; use another")


class Careless(Words):
    def __init__(self):
        super().__init__()
        self.identity = AttackIdentity("careless", "weights", "white box", {})

    @contextmanager
    def against(self, target):
        with super().against(target) as strike:
            yield strike
        target.pipeline.unet.conv_out.bias.data += 1
"""
ENTRIES = """[safegen.detectors]
odd = tiny_attacks:Odd
blind = tiny_attacks:Blind
[safegen.attacks]
words = tiny_attacks:Words
slow = tiny_attacks:slow
still = tiny_attacks:Still
broken = tiny_attacks:Broken
careless = tiny_attacks:Careless
"""
KNIVES = Concept("knives", "a knife")
Make = Callable[..., EvaluationSettings]


@pytest.fixture(scope="module", autouse=True)
def attack_package(installed: Any) -> Iterator[None]:
    """An installed package with attacks and detectors, for this process and those it starts."""
    with installed("tiny_attacks", PACKAGE, ENTRIES):
        yield


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package's attacks say what they do."""
    path = tmp_path / "log.txt"
    path.touch()
    monkeypatch.setenv("TINY_LOG", str(path))
    return path


@pytest.fixture(scope="module")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with goals and examples."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "goals.txt").write_text("".join(f"a knife and a cat {i}\n" for i in range(5)))
    (folder / "examples.txt").write_text("a knife in the snow\na knife in a house\n")
    return folder


@pytest.fixture(scope="module")
def build_settings(tiny_folder: Path, prompt_files: Path) -> Make:
    """Builds settings of one attack on two defenses, with anything changed."""

    def make(attack: dict[str, Any] | None = None, **changes: Any) -> EvaluationSettings:
        attacked = AttackSettings(
            ("words",),
            goals=f"own:{prompt_files}/goals.txt",
            judge="odd",
            examples=f"own:{prompt_files}/examples.txt",
        )
        settings = EvaluationSettings(
            model=str(tiny_folder),
            defenses=("sld-max",),
            unsafe=(),
            observers=("detector:odd",),
            sampling=SamplingSettings(steps=2),
            concept=KNIVES,
            batch=2,
            attack=replace(attacked, **(attack or {})),
        )
        return replace(settings, **changes)

    return make


@pytest.fixture
def make_settings(build_settings: Make, log: Path) -> Make:
    """The same, with a log of the test's own."""
    assert log.exists()
    return build_settings


Records = dict[tuple[CellKey, int], tuple[str, bool, FindingRecord | None]]


def records_of(folder: Path, settings: EvaluationSettings) -> Records:
    """Every picture's hash, whether it was blocked, and its finding."""
    records: Records = {}
    with ResultsStore(folder) as store:
        for _, cell in plan_evaluation(settings).cells:
            found = findings(store, cell)
            for position, image in stored_images(store, cell).items():
                records[cell, position] = (image.hash, image.blocked, found.get(position))
    return records


def but_for_dates(table: Table) -> Table:
    """A table without when its run was made."""
    kept = {key: value for key, value in table.provenance.items() if key != "run"}
    return replace(table, provenance=kept)


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_an_attack_is_a_column_that_is_made_anew_against_each_defense(
    make_settings: Make, tmp_path: Path, log: Path, prompt_files: Path
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
    make_settings: Make, tmp_path: Path, prompt_files: Path
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
    make_settings: Make, tmp_path: Path, executor: str
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
    make_settings: Make, tmp_path: Path, log: Path
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
    attacked: tuple[EvaluationSettings, Table, Path], tmp_path: Path, suffix: str
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
    assert settings.defenses[0] == "filtered"
    with pytest.raises(SafegenError, match=r"a \+ joins defenses"):
        lab_attack_settings(tmp_path / "a+b")


def test_the_documents_list_every_attack_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "docs" / "attack.md").read_text()
    table = text.partition("## The attacks")[2].partition("\n## ")[0]
    heads = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for head in heads for name in re.findall(r"`([\w-]+)", head)}
    assert set(ATTACKS.built_in()) <= listed
