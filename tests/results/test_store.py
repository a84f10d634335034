"""The results store: nothing is lost, mixed, or written by two."""

from __future__ import annotations

import errno
import hashlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
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
    flagged,
    read_picture,
    real_features,
    stored_images,
    undrawn_batches,
    unseen_positions,
)
from safegen.results.database import SCHEMA, STORE_FILE
from safegen.results.records import Cell, DefenseRecord, FindingRecord, Item, PromptSetRecord
from safegen.results.sessions import check_code, session, sessions
from safegen.results.store import CellKey, ResultsStore, difference, image_path

SET = PromptSetRecord("words", "unsafe", {"file_hash": "ab"})
CELL = CellKey("none", "words")
CODE = {"safegen": "0.1.0+g2", "source": "ab", "python": "3.11", "torch": "2.9"}
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
        store.connection.executescript("DROP TABLE findings; DROP TABLE sessions")
        store.connection.execute("PRAGMA user_version = 1")
    with ResultsStore(tmp_path) as store:
        assert stored_images(store, CELL) == before
        keep(store)
        store.add_pictures(CELL, [1], [(b"two", False)], [FindingRecord("b", 1.0, 1, 0)])
        assert list(findings(store, CELL)) == [1]
        assert store.connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)


def test_a_picture_is_never_recorded_twice(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        keep(store)
        store.add_pictures(CELL, [0], [(b"one", False)])
        before = stored_images(store, CELL)
        with pytest.raises(SafegenError, match="UNIQUE constraint failed"):
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


def fill(store: ResultsStore) -> None:
    """Something of everything that a store holds."""
    keep(store)
    with session(store, CODE):
        store.add_pictures(CELL, [0], [(b"one", False)], [FindingRecord("b", 1.0, 1, 0)])
        seen = Observation({"detections": []}, np.zeros(3, "f4"))
        store.add_observations("detector", CELL, [0], [seen])
        store.add_real_features("detector", 0, np.ones((2, 3)))


def use(folder: Path) -> Cell:
    """Read all of it."""
    with ResultsStore(folder) as store:
        keep(store)
        check_code(store, CODE)
        assert undrawn_batches(store, CELL) == [0, 1]
        assert read_picture(store, CELL, 0) == b"one"
        assert flagged(store, CELL, 0) is False
        assert list(batch_items(store, "words", 0)) == [0, 1]
        return StoredCells(store, ["none"], [SET], ["detector"])[CELL]


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A damage of the store's file."""
    return lambda folder: (folder / STORE_FILE).write_bytes(
        change((folder / STORE_FILE).read_bytes())
    )


def of_picture(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """A damage of the file of a picture."""
    return lambda folder: damage(image_path(folder, hashlib.sha256(b"one").hexdigest()))


DAMAGES: dict[str, tuple[str | Callable[[Path], object], str]] = {
    "no table": ("DROP TABLE images", "it lacks table images"),
    "another column": ("ALTER TABLE images RENAME made TO drawn", r"it lacks .* images\.made"),
    "no index": ("DROP INDEX items_by_batch", "it lacks index items_by_batch"),
    "later schema": ("PRAGMA user_version = 99", r"newer safegen \(schema 99"),
    "negative schema": ("PRAGMA user_version = -1", "another program's"),
    "lost schema": ("PRAGMA user_version = 0", "another program's"),
    "setting": ("UPDATE settings SET value = '{'", "is damaged"),
    "defense": ("UPDATE defenses SET settings = x'00ff'", "is damaged"),
    "session": ("UPDATE sessions SET code = '[]'", "no JSON object"),
    "record": ("UPDATE observations SET record = '{'", "is damaged"),
    "list": ("UPDATE observations SET record = '[1]'", "no JSON object"),
    "other keys": ("UPDATE observations SET record = '{}'", "detections"),
    "features": ("UPDATE observations SET features = x'010203'", "buffer size"),
    "real features": ("UPDATE real_features SET width = 4", "reshape"),
    "finding": ("UPDATE findings SET details = '3'", "no JSON object"),
    "seed": ("UPDATE items SET seed = 'x'", "invalid literal"),
    "asked": ("UPDATE items SET asked = '7'", "not iterable"),
    "encoding": ("UPDATE items SET text = CAST(x'ff' AS TEXT)", "UTF-8"),
    "hash": ("UPDATE images SET hash = 'ab'", r"ab\.png: is recorded .*No such file"),
    "truncated": (rewritten(lambda data: data[: len(data) // 2]), "malformed"),
    "zeros": (rewritten(lambda data: data[:4096] + bytes(len(data) - 4096)), "Page|malformed"),
    "text": (rewritten(lambda data: b"text" + data), "not a database"),
    "emptied": (rewritten(lambda data: data[:0]), "nothing of the pictures"),
    "gone": (lambda folder: (folder / STORE_FILE).unlink(), "nothing of the pictures"),
    "no lock": (lambda folder: (folder / "store.lock").write_text("x" * 999), "cannot be locked"),
    "picture gone": (of_picture(Path.unlink), "No such file"),
    "picture changed": (of_picture(lambda path: path.write_bytes(b"two")), "not the picture"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_in_a_line(
    tmp_path: Path, damage: str | Callable[[Path], object], message: str
) -> None:
    with ResultsStore(tmp_path) as store:
        fill(store)
    assert use(tmp_path).findings
    if isinstance(damage, str):
        with closing(sqlite3.connect(tmp_path / STORE_FILE)) as opened:
            opened.executescript(damage)
    else:
        damage(tmp_path)
    with pytest.raises(SafegenError, match=message) as caught:
        use(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "newer" in str(caught.value) or "--out" in str(caught.value)


def test_what_is_in_the_stores_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder" / STORE_FILE).mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / STORE_FILE)) as other:
        other.execute("CREATE TABLE songs (name TEXT)")
    (tmp_path / "file").write_text("")
    for place, message in (("folder", "unable to open"), ("", "another"), ("file", "is a file")):
        with pytest.raises(SafegenError, match=message):
            ResultsStore(tmp_path / place)


def test_a_lost_log_is_missed(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "run") as store:
        fill(store)
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert use(tmp_path / "copy").findings  # a killed process leaves the log
    with ResultsStore(tmp_path / "other") as store:
        fill(store)
        shutil.copytree(
            tmp_path / "other", tmp_path / "lost", ignore=lambda *_: ["store.sqlite-wal"]
        )
    with pytest.raises(SafegenError, match="nothing of the pictures"):
        use(tmp_path / "lost")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with ResultsStore(tmp_path) as store:
        fill(store)
        monkeypatch.setattr("safegen.files.os.fsync", full)
        with pytest.raises(SafegenError, match="No space left"):
            store.add_pictures(CELL, [1], [(b"two", False)])
        store.connection.execute("PRAGMA max_page_count = 1")
        long = Observation({"text": "x" * 100_000})
        with pytest.raises(SafegenError, match=r"store\.sqlite: .* is full\); free some space"):
            store.add_observations("clip", CELL, [0], [long])
    assert use(tmp_path).findings


def test_a_picture_that_was_cut_off_is_drawn_again(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        fill(store)
        place = image_path(tmp_path, hashlib.sha256(b"one").hexdigest())
        place.write_bytes(b"o")
        store.add_pictures(CELL, [1], [(b"one", False)])
        assert read_picture(store, CELL, 0) == b"one"
        with pytest.raises(SafegenError, match="no picture of none on words, item 3"):
            read_picture(store, CELL, 3)


def test_sessions_tell_when_how_far_and_with_which_code(tmp_path: Path) -> None:
    newer = {**CODE, "safegen": "0.1.0+g3", "source": "cd"}
    with ResultsStore(tmp_path) as store:
        fill(store)
        with pytest.raises(KeyboardInterrupt), session(store, newer):
            raise KeyboardInterrupt
        open_one = session(store, CODE)
        open_one.__enter__()  # as if the process was killed
    with ResultsStore(tmp_path) as store:
        assert [each.status for each in sessions(store)] == ["complete", "interrupted", "running"]
        with session(store, CODE):
            pass
        found = sessions(store)
        assert [each.status for each in found[2:]] == ["interrupted", "complete"]
        assert [each.finished is None for each in found] == [False, False, True, False]
        assert [each.code["source"] for each in found] == ["ab", "cd", "ab", "ab"]
        keep(store)  # a run with pictures keeps them
        assert sessions(store) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": "cd", "safegen": "0.1.0+g3"},
            r"safegen is 0\.1\.0\+g2 there and 0\.1\.0\+g3 he",
        ),
        ({"torch": "3.0"}, r"torch is 2\.9 there and 3\.0 here; .* --allow-other-code"),
        ({"safegen": "0.1.0+g3", "python": "3.12"}, None),
    ],
)
def test_results_of_other_code_are_not_mixed(
    tmp_path: Path, changes: dict[str, str], message: str | None
) -> None:
    with ResultsStore(tmp_path) as store:
        check_code(store, CODE)
        fill(store)
        with nullcontext() if message is None else pytest.raises(SafegenError, match=message):
            check_code(store, {**CODE, **changes})
        store.connection.execute("DELETE FROM sessions")  # as stores of earlier schemas
        with pytest.raises(SafegenError, match="safegen is an unrecorded version there"):
            check_code(store, CODE)


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
