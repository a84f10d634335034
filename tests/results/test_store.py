"""The results store: nothing is lost, mixed, or written by two."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.observers import Observation, ObserverIdentity
from safegen.results.cells import (
    StoredCells,
    all_items,
    batch_items,
    findings,
    read_picture,
    real_features,
    stored_images,
    undrawn_batches,
    unseen_positions,
)
from safegen.results.records import DefenseRecord, FindingRecord, Item, PromptSetRecord
from safegen.results.store import CellKey, ResultsStore, difference, image_path

SET = PromptSetRecord("words", "unsafe", {"file_hash": "ab"})
CELL = CellKey("none", "words")
ITEMS = [Item(f"p{i}", 0, f"text {i}", 2**64 - 1 - i, 7.5, ("knife",)) for i in range(4)]


def keep(store: ResultsStore, settings: dict[str, Any] | None = None) -> None:
    store.keep_settings(settings or {"samples": 1})
    store.keep_defense(DefenseRecord("none"))
    store.keep_prompt_set(SET, ((i // 2, item) for i, item in enumerate(ITEMS)))


def test_what_was_stored_is_read_back(tmp_path: Path) -> None:
    features = np.arange(3, dtype=np.float32)
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0, 1], [(b"one", False), (b"two", True)])
        store.add_observations("clip", CELL, [0], [Observation({"cosine": 0.5}, features)])
        store.add_real_features("clip", 1, np.full((1, 3), 2.0))
        store.add_real_features("clip", 0, np.ones((2, 3)))
    with ResultsStore(tmp_path) as store:
        assert all_items(store, "words") == ITEMS
        assert batch_items(store, "words", 1) == {2: ITEMS[2], 3: ITEMS[3]}
        images = stored_images(store, CELL)
        assert [image.blocked for image in images.values()] == [False, True]
        digest = hashlib.sha256(b"one").hexdigest()
        assert images[0].hash == digest
        assert (tmp_path / "images" / digest[:2] / f"{digest}.png").read_bytes() == b"one"
        assert read_picture(store, CELL, 1) == b"two"
        assert undrawn_batches(store, CELL) == [1]
        assert unseen_positions(store, "clip", CELL, 0) == [1]
        cells = StoredCells(store, ["none"], [SET], ["clip"], frozenset({"knife"}))
        cell = cells["none", "words"]
        assert (cell.role, cell.items) == ("unsafe", ITEMS)
        (seen,) = cell.observations["clip"]
        assert seen.values == {"cosine": 0.5}
        assert np.array_equal(np.asarray(seen.features), features)
        assert cell.references["clip"].tolist() == [[1] * 3, [1] * 3, [2] * 3]
        assert real_features(store, "lpips") is None
        assert list(cells) == [CELL]
        with pytest.raises(KeyError):
            cells["sld-max", "words"]


def test_findings_are_stored_with_their_pictures_or_not_at_all(tmp_path: Path) -> None:
    found = [FindingRecord("a knife", 0.25, 3, 40, {"step": [1]}), FindingRecord(None, 0.0, 1, 0)]
    pictures = [(b"one", False), (b"two", True)]
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0, 2], pictures, found)
        store.add_pictures(CELL, [1], pictures[:1])
        with pytest.raises(ValueError, match="shorter"):
            store.add_pictures(CELL, [3], pictures[:1], [])
    with ResultsStore(tmp_path) as store:
        assert findings(store, CELL) == {0: found[0], 2: found[1]}
        assert list(stored_images(store, CELL)) == [0, 1, 2]
        assert StoredCells(store, ["none"], [SET], [])[CELL].findings == tuple(found)


def test_a_store_of_the_first_schema_is_brought_up(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0], [(b"one", False)])
        before = stored_images(store, CELL)
        store.connection.execute("DROP TABLE findings")
        store.connection.execute("PRAGMA user_version = 1")
    with ResultsStore(tmp_path) as store:
        assert stored_images(store, CELL) == before
        keep(store)
        store.add_pictures(CELL, [1], [(b"two", False)], [FindingRecord("b", 1.0, 1, 0)])
        assert list(findings(store, CELL)) == [1]
        assert store.connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_picture_is_never_recorded_twice(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0], [(b"one", False)])
        before = stored_images(store, CELL)
        with pytest.raises(sqlite3.IntegrityError):
            store.add_pictures(CELL, [1, 0], [(b"two", False), (b"three", False)])
        assert stored_images(store, CELL) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.keep_settings({"samples": 2}), "samples is 1 there and 2 here"),
        (
            lambda s: s.keep_settings({"sampling": {"steps": 3, "sampler": "ddim"}}),
            "sampling has steps 2 there and 3 here",
        ),
        (
            lambda s: s.keep_defense(DefenseRecord("none", {"a": 1})),
            "the defense none has a null there and 1 here",
        ),
        (
            lambda s: s.keep_observer(ObserverIdentity("clip", {"hash": "cd"})),
            'the observer clip has hash "ab" there and "cd" here',
        ),
        (
            lambda s: s.keep_prompt_set(PromptSetRecord("words", "unsafe", {"file_hash": "x"}), []),
            'the prompt set words has file_hash "ab" there and "x" here',
        ),
        (
            lambda s: s.keep_prompt_set(PromptSetRecord("words", "benign", SET.identity), []),
            'the prompt set words has role "unsafe" there and "benign" here',
        ),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    settings = {"samples": 1, "sampling": {"steps": 2, "sampler": "ddim"}}
    with ResultsStore(tmp_path) as store:
        keep(store, settings)
        store.keep_observer(ObserverIdentity("clip", {"hash": "ab"}))
        store.add_pictures(CELL, [0], [(b"one", False)])
    with ResultsStore(tmp_path) as store:
        keep(store, settings)
        with pytest.raises(SafegenError, match=message) as caught:
            change(store)
        assert str(tmp_path) in str(caught.value)
        assert "--out" in str(caught.value)
        assert all_items(store, "words") == ITEMS


def test_a_run_without_pictures_is_begun_anew(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        keep(store, {"samples": 1})
        store.keep_settings({"samples": 2})
        assert all_items(store, "words") == []
        assert store.kept("samples") == 2


def test_a_set_that_cannot_be_listed_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield 0, ITEMS[0]
        raise SafegenError("line 2 cannot be read")

    with ResultsStore(tmp_path) as store:
        with pytest.raises(SafegenError, match="line 2"):
            store.keep_prompt_set(SET, broken())
        assert all_items(store, "words") == []
        keep(store)
        assert all_items(store, "words") == ITEMS


def test_all_versions_that_worked_on_a_run_are_told(tmp_path: Path) -> None:
    for version in ("2.1", "2.0", "2.1"):
        with ResultsStore(tmp_path) as store:
            store.add_versions({"torch": version})
    with ResultsStore(tmp_path) as store:
        assert store.kept("versions") == {"torch": ["2.0", "2.1"]}


def test_two_processes_do_not_write_to_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from safegen.results.store import ResultsStore\n"
        f"with ResultsStore(Path({str(tmp_path)!r})): print('open', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(SafegenError, match="another evaluation is writing there"):
        ResultsStore(tmp_path)
    other.kill()
    other.communicate()
    with ResultsStore(tmp_path):
        pass


def test_stores_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "newer") as store:
        store.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SafegenError, match=r"newer safegen \(schema 99"):
        ResultsStore(tmp_path / "newer")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "store.sqlite").write_text("no database " * 100)
    with pytest.raises(SafegenError, match="cannot be used as a results store"):
        ResultsStore(tmp_path / "foreign")
    (tmp_path / "file").write_text("")
    with pytest.raises(SafegenError, match="is a file"):
        ResultsStore(tmp_path / "file")


def test_a_picture_that_is_gone_is_missed(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0], [(b"one", False)])
        image_path(tmp_path, stored_images(store, CELL)[0].hash).unlink()
        with pytest.raises(SafegenError, match="not there any more"):
            read_picture(store, CELL, 0)
        with pytest.raises(SafegenError, match="no picture of none on words, item 3"):
            read_picture(store, CELL, 3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_a_difference_is_always_one_short_line(kept: Any, asked: Any) -> None:
    if kept != asked:
        said = difference(kept, asked)
        assert "there and" in said
        assert "\n" not in said
