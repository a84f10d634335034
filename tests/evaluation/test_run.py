"""Whole runs: completed, added to, killed and continued, with the same results."""

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
from PIL import Image

from safegen.errors import SafegenError
from safegen.evaluation.plan import plan_evaluation
from safegen.evaluation.provenance import code
from safegen.evaluation.run import Progress, evaluate
from safegen.evaluation.settings import EvaluationSettings
from safegen.models.sampling import SamplingSettings
from safegen.results.cells import StoredCells, stored_images
from safegen.results.database import STORE_FILE
from safegen.results.records import Cell
from safegen.results.sessions import sessions
from safegen.results.store import CellKey, ResultsStore, StoredImage
from safegen.version import code_revision

Make = Callable[..., EvaluationSettings]
Images = dict[CellKey, dict[int, StoredImage]]


def images_of(folder: Path, settings: EvaluationSettings) -> Images:
    """All records of pictures, with the times at which they were made."""
    with ResultsStore(folder) as store:
        return {cell: stored_images(store, cell) for _, cell in plan_evaluation(settings).cells}


def hashes_of(images: Images) -> dict[tuple[CellKey, int], tuple[str, bool]]:
    return {
        (cell, position): (image.hash, image.blocked)
        for cell, found in images.items()
        for position, image in found.items()
    }


def cell_of(folder: Path, settings: EvaluationSettings, key: tuple[str, str]) -> Cell:
    plan = plan_evaluation(settings)
    names = [defense.record.name for defense in plan.defenses]
    sets = [prompt_set.record for prompt_set in plan.prompt_sets]
    with ResultsStore(folder) as store:
        return StoredCells(store, names, sets, list(settings.observers))[key]


def test_a_run_draws_and_observes_every_item(make_settings: Make, tmp_path: Path) -> None:
    told: list[Progress] = []
    settings = make_settings()
    table = evaluate(settings, tmp_path, on_progress=told.append)
    assert [record.name for record in table.defenses] == ["none", "sld-max"]
    assert [(r.name, r.role) for r in table.prompt_sets] == [
        ("knives", "unsafe"),
        ("cats", "benign"),
    ]
    assert table.provenance["sampling"]["steps"] == 2
    assert table.provenance["observers"]["brightness"] == {"version": "1"}
    assert table.provenance["device"] == "cpu"
    assert table.provenance["run"]["status"] == "complete"
    assert table.provenance["run"]["started"] <= table.provenance["run"]["finished"]
    assert table.provenance["versions"]["source"] == [code_revision()["source"]]
    images = images_of(tmp_path, settings)
    assert [len(found) for found in images.values()] == [5, 3, 5, 3]
    cell = cell_of(tmp_path, settings, ("sld-max", "knives"))
    assert [item.text for item in cell.items] == [f"a knife and a cat {i}" for i in range(5)]
    for position, (item, seen) in enumerate(
        zip(cell.items, cell.observations["brightness"], strict=True)
    ):
        digest = images[CellKey("sld-max", "knives")][position].hash
        with Image.open(tmp_path / "images" / digest[:2] / f"{digest}.png") as picture:
            means = np.asarray(picture).mean((0, 1))
        assert seen.values["text"] == item.text
        assert np.allclose(np.asarray(seen.features), means)
    changes = [
        [seen.values["largest"] for seen in cell_of(tmp_path, settings, key).observations["change"]]
        for key in (("none", "knives"), ("sld-max", "knives"))
    ]
    assert set(changes[0]) == {0}
    assert max(changes[1]) > 0
    assert changes[1][2] == 0  # without guidance there is nothing for SLD to work through
    for phase, total in (("drawing", 16), ("observing", 32)):
        done = [progress.done for progress in told if progress.phase == phase]
        assert done == sorted(set(done))
        assert (done[-1], total) == (total, total)


def test_what_is_added_is_all_that_is_computed(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings(observers=("brightness",))
    table = evaluate(settings, tmp_path)
    before = images_of(tmp_path, settings)
    told: list[Progress] = []
    assert evaluate(settings, tmp_path, on_progress=told.append) == table
    assert told == []
    more = replace(
        settings,
        defenses=("negative-prompt", "sld-max"),
        near_miss=("more=lab:near-miss,count=2",),
        observers=("brightness", "change"),
    )
    evaluate(more, tmp_path, on_progress=told.append)
    after = images_of(tmp_path, more)
    assert {cell: found for cell, found in after.items() if cell in before} == before
    assert {cell for cell in after if cell not in before} == {
        ("negative-prompt", "knives"),
        ("negative-prompt", "cats"),
        ("none", "more"),
        ("sld-max", "more"),
        ("negative-prompt", "more"),
    }
    drawn = [progress for progress in told if progress.phase == "drawing"]
    seen = [progress for progress in told if progress.phase == "observing"]
    assert drawn[-1].total == drawn[-1].done == 8 + 3 * 2
    assert seen[-1].total == seen[-1].done == 14 + 30
    fresh = tmp_path / "fresh"
    evaluate(more, fresh)
    assert hashes_of(images_of(fresh, more)) == hashes_of(after)


def test_results_made_differently_are_not_mixed(
    make_settings: Make, tmp_path: Path, build_pipeline: Callable[..., Any], prompt_files: Path
) -> None:
    settings = make_settings(observers=("brightness",))
    evaluate(settings, tmp_path / "run")
    before = images_of(tmp_path / "run", settings)
    build_pipeline(seed=3).save_pretrained(tmp_path / "other")
    changed = prompt_files / "benign.txt"
    for changes, message in (
        ({"model": str(tmp_path / "other")}, "model has"),
        ({"sampling": replace(settings.sampling, steps=3)}, "sampling has steps 2 there and 3"),
        ({"seed": 1}, "seed is null there and 1 here"),
        ({"samples": 2}, "samples is 1 there and 2 here"),
        ({"batch": 3}, "batch is 2 there and 3 here"),
        ({"concept": replace(settings.concept, text="cats")}, "the defense sld-max has"),
        ({"defenses": ("sld-max=sld-weak",)}, 'the defense sld-max has defense "sld-max" there'),
        ({"benign": (f"cats=own:{changed},count=2",)}, "the prompt set cats has"),
        ({"observers": ("brightness:2",)}, 'the observer brightness has version "1" there and "2"'),
        ({"observers": ("brightness:2", "brightness")}, "both record as 'brightness'"),
    ):
        with pytest.raises(SafegenError, match=message) as caught:
            evaluate(replace(settings, **changes), tmp_path / "run")
        assert "--out" in str(caught.value)
    assert images_of(tmp_path / "run", settings) == before
    with closing(sqlite3.connect(tmp_path / "run" / STORE_FILE)) as store, store:
        store.execute("UPDATE settings SET value = '\"cuda\"' WHERE name = 'device'")
    with pytest.raises(SafegenError, match='device is "cuda" there and "cpu" here'):
        evaluate(settings, tmp_path / "run")


def test_other_code_adds_nothing_unless_it_is_allowed_to(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(observers=("brightness",))
    table = evaluate(settings, tmp_path)
    other = {**code(), "torch": "1.0"}
    monkeypatch.setattr("safegen.evaluation.run.code", lambda: other)
    assert evaluate(settings, tmp_path) == table  # nothing is added
    more = replace(settings, defenses=("sld-max", "negative-prompt"))
    with pytest.raises(SafegenError, match=r"torch is .* there and 1\.0 here.*--allow-other-code"):
        evaluate(more, tmp_path)
    mixed = evaluate(replace(more, allow_other_code=True), tmp_path)
    assert mixed.provenance["versions"]["torch"] == sorted(["1.0", code()["torch"]])


def test_a_defense_that_does_not_fit_is_said_before_anything_is_drawn(
    make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(defenses=("sld-max", "safety-filter"))
    with pytest.raises(SafegenError, match="came without a safety checker"):
        evaluate(settings, tmp_path)
    assert not (tmp_path / "images").exists()


def test_real_pictures_are_seen_once(make_settings: Make, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for number in range(70):
        size = (4, 4) if number < 65 else (6, 4)
        Image.new("RGB", size, (number, 2, 3)).save(real / f"{number:03d}.png")
    settings = make_settings(real=str(real))
    evaluate(settings, tmp_path / "run")
    cell = cell_of(tmp_path / "run", settings, ("none", "cats"))
    assert list(cell.references) == ["brightness"]
    expected = [[float(number), 2.0, 3.0] for number in range(70)]
    assert cell.references["brightness"].tolist() == expected
    evaluate(settings, tmp_path / "run")
    Image.new("RGB", (4, 4)).save(real / "more.png")
    with pytest.raises(SafegenError, match="real has count 70 there and 71 here"):
        evaluate(settings, tmp_path / "run")
    with pytest.raises(SafegenError, match="no observer has any"):
        evaluate(make_settings(observers=("change",), real=str(real)), tmp_path / "other")


KILLED = """
import signal
import sys
from pathlib import Path
from safegen.concepts import Concept, ConceptPrompts
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import EvaluationSettings
from safegen.models.sampling import SamplingSettings

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    evaluate(eval(sys.argv[1]), Path(sys.argv[2]))
"""


def rows(folder: Path, table: str) -> int:
    """How many rows a table of a run that goes on has."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/store.sqlite?mode=ro", uri=True)) as opened:
            return int(opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # there is none yet


def test_a_run_killed_at_any_moment_goes_on(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings(
        batch=1, observers=("brightness",), sampling=SamplingSettings(steps=12)
    )
    table = evaluate(settings, tmp_path / "complete")
    folder = tmp_path / "killed"
    ends = []
    command = [sys.executable, "-c", KILLED, repr(settings), str(folder)]
    found: Images = {}
    for where, wanted, number in (
        ("images", 6, signal.SIGINT),
        ("observations", 1, signal.SIGKILL),
    ):
        process = subprocess.Popen(command)
        while process.poll() is None and rows(folder, where) < wanted:
            time.sleep(0.002)
        os.kill(process.pid, number)
        assert process.wait() == -number
        with ResultsStore(folder) as store:
            ends.append(sessions(store)[-1].status)
        left = images_of(folder, settings)
        for cell, images in found.items():
            assert images.items() <= left[cell].items()  # times included: none was drawn again
        found = left
        assert where != "images" or wanted <= len(hashes_of(found)) < 16
    assert ends == ["interrupted", "running"]
    again = evaluate(settings, folder)
    assert (again.figures, again.notes) == (table.figures, table.notes)
    assert again.provenance["run"]["status"] == "complete"
    assert images_of(folder, settings) == found
    assert hashes_of(found) == hashes_of(images_of(tmp_path / "complete", settings))
