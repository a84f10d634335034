"""Reading of a results store: what is missing, pictures, and the cells of the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from safegen.errors import SafegenError
from safegen.observers import Observation
from safegen.results.database import reads
from safegen.results.records import Cell, FindingRecord, Item, PromptSetRecord
from safegen.results.store import CellKey, ResultsStore, StoredImage, image_path, json_object

_ITEM = "prompt_id, sample, text, seed, guidance, asked"
_UNDRAWN = """
    FROM items LEFT JOIN images ON images.defense = ? AND images.prompt_set = items.prompt_set
        AND images.position = items.position
    WHERE items.prompt_set = ? AND images.hash IS NULL"""
_UNSEEN = """
    FROM images JOIN items USING (prompt_set, position) LEFT JOIN observations AS seen
        ON seen.observer = ? AND seen.defense = images.defense
        AND seen.prompt_set = images.prompt_set AND seen.position = images.position
    WHERE images.defense = ? AND images.prompt_set = ? AND seen.record IS NULL"""


@reads
def recorded(
    store: ResultsStore, kind: Literal["settings", "defenses", "observers", "prompt_sets"]
) -> dict[str, Any]:
    """Read all recorded values of a kind by name, as JSON values."""
    rows = store.connection.execute(f"SELECT * FROM {kind} ORDER BY name")
    return {name: json.loads(value) for name, value in rows}


@reads
def picture_hashes(store: ResultsStore) -> set[str]:
    """Return the hashes of all pictures."""
    return {digest for (digest,) in store.connection.execute("SELECT hash FROM images")}


def undrawn(store: ResultsStore, cell: CellKey) -> int:
    """Count the missing pictures of a cell."""
    return _number(store, f"SELECT count(*) {_UNDRAWN}", cell)


@reads
def undrawn_batches(store: ResultsStore, cell: CellKey) -> list[int]:
    """List the batches of a cell with missing pictures."""
    query = f"SELECT DISTINCT items.batch {_UNDRAWN} ORDER BY items.batch"
    return [batch for (batch,) in store.connection.execute(query, cell)]


def unseen(store: ResultsStore, observer: str, cell: CellKey) -> int:
    """Count the pictures of a cell that an observer has not seen."""
    return _number(store, f"SELECT count(*) {_UNSEEN}", (observer, *cell))


@reads
def unseen_batches(store: ResultsStore, observer: str, cell: CellKey) -> list[int]:
    """List the batches of a cell with pictures that an observer has not seen."""
    query = f"SELECT DISTINCT items.batch {_UNSEEN} ORDER BY items.batch"
    return [batch for (batch,) in store.connection.execute(query, (observer, *cell))]


@reads
def unseen_positions(store: ResultsStore, observer: str, cell: CellKey, batch: int) -> list[int]:
    """List the positions in a batch whose pictures an observer has not seen."""
    query = """SELECT items.position FROM items INDEXED BY items_by_batch
        CROSS JOIN images USING (prompt_set, position) LEFT JOIN observations AS seen
            ON seen.observer = ? AND seen.defense = images.defense
            AND seen.prompt_set = images.prompt_set AND seen.position = images.position
        WHERE items.prompt_set = ? AND items.batch = ? AND images.defense = ?
            AND seen.record IS NULL ORDER BY items.position"""
    arguments = (observer, cell.prompt_set, batch, cell.defense)
    return [position for (position,) in store.connection.execute(query, arguments)]


@reads
def batch_items(store: ResultsStore, prompt_set: str, batch: int) -> dict[int, Item]:
    """Read the items of a batch by position."""
    query = f"""SELECT position, {_ITEM} FROM items INDEXED BY items_by_batch
        WHERE prompt_set = ? AND batch = ? ORDER BY position"""
    rows = store.connection.execute(query, (prompt_set, batch))
    return {position: _item(*row) for position, *row in rows}


@reads
def all_items(store: ResultsStore, prompt_set: str) -> list[Item]:
    """Read the items of a prompt set, in its order."""
    query = f"SELECT {_ITEM} FROM items WHERE prompt_set = ? ORDER BY position"
    return [_item(*row) for row in store.connection.execute(query, (prompt_set,))]


def stored_image(store: ResultsStore, cell: CellKey, position: int) -> StoredImage:
    """Read the record of a picture.

    Raises:
        SafegenError: the picture is missing.
    """
    query = """SELECT hash, blocked, made FROM images
        WHERE defense = ? AND prompt_set = ? AND position = ?"""
    with store.readable():
        row = store.connection.execute(query, (*cell, position)).fetchone()
    if row is None:
        raise SafegenError(
            f"{store.folder}: has no picture of {cell.defense} on {cell.prompt_set}, item "
            f"{position}; start the evaluation again to complete it"
        )
    return StoredImage(row[0], bool(row[1]), row[2])


@reads
def stored_images(store: ResultsStore, cell: CellKey) -> dict[int, StoredImage]:
    """Read the records of a cell's pictures by position."""
    query = """SELECT position, hash, blocked, made FROM images
        WHERE defense = ? AND prompt_set = ? ORDER BY position"""
    rows = store.connection.execute(query, cell)
    return {
        position: StoredImage(digest, bool(flag), made) for position, digest, flag, made in rows
    }


@reads
def flagged(store: ResultsStore, cell: CellKey, position: int) -> bool | None:
    """Test whether the detector found anything in a picture; None if none saw it."""
    query = """SELECT record FROM observations WHERE observer = 'detector'
        AND defense = ? AND prompt_set = ? AND position = ?"""
    row = store.connection.execute(query, (*cell, position)).fetchone()
    return None if row is None else bool(json_object(row[0])["detections"])


@reads
def flags(store: ResultsStore, cell: CellKey) -> dict[int, bool]:
    """Tell, by position, whether the detector found anything in the pictures that it saw."""
    query = """SELECT position, record FROM observations
        WHERE observer = 'detector' AND defense = ? AND prompt_set = ?"""
    rows = store.connection.execute(query, cell)
    return {position: bool(json_object(record)["detections"]) for position, record in rows}


@reads
def findings(store: ResultsStore, cell: CellKey) -> dict[int, FindingRecord]:
    """Read the findings of a cell's attack by position; empty without an attack."""
    query = """SELECT position, text, score, pictures, passes, details FROM findings
        WHERE defense = ? AND prompt_set = ? ORDER BY position"""
    rows = store.connection.execute(query, cell)
    return {
        position: FindingRecord(text, score, pictures, passes, json_object(details))
        for position, text, score, pictures, passes, details in rows
    }


def read_picture(store: ResultsStore, cell: CellKey, position: int) -> bytes:
    """Read a picture as PNG.

    Raises:
        SafegenError: the picture is missing, or is not the recorded one.
    """
    path = image_path(store.folder, stored_image(store, cell, position).hash)
    return picture_bytes(path)


def picture_bytes(path: Path) -> bytes:
    """Read the bytes of a picture file, which is named by their hash.

    Raises:
        SafegenError: the file cannot be read, or is not the recorded picture.
    """
    mend = "put it back, or start the evaluation in another folder with --out"
    try:
        found = path.read_bytes()
    except OSError as error:
        raise SafegenError(
            f"{path}: is recorded in the run and cannot be read ({error.strerror}); {mend}"
        ) from error
    if hashlib.sha256(found).hexdigest() != path.stem:
        raise SafegenError(f"{path}: is not the picture that was drawn; {mend}")
    return found


@reads
def has_features(store: ResultsStore, observer: str) -> bool:
    """Test whether an observer records features of pictures."""
    query = "SELECT features FROM observations WHERE observer = ? LIMIT 1"
    row = store.connection.execute(query, (observer,)).fetchone()
    return row is not None and row[0] is not None


@reads
def real_batches(store: ResultsStore, observer: str) -> set[int]:
    """Return the batches of real pictures whose features by an observer are stored."""
    query = "SELECT batch FROM real_features WHERE observer = ?"
    return {batch for (batch,) in store.connection.execute(query, (observer,))}


@reads
def real_features(store: ResultsStore, observer: str) -> np.ndarray | None:
    """Read an observer's features (M, D) of the real pictures; None without any."""
    query = "SELECT width, features FROM real_features WHERE observer = ? ORDER BY batch"
    parts = [
        np.frombuffer(blob, "<f4").reshape(-1, width)
        for width, blob in store.connection.execute(query, (observer,))
    ]
    return np.concatenate(parts) if parts else None


class StoredCells(Mapping[CellKey, Cell]):
    """Cells of a table, each read on demand and not kept.

    Args:
        store: open results store.
        defenses: names of the defenses, in the order of the table.
        prompt_sets: prompt sets in the order of the table.
        observers: names of the observers whose observations to read.
        unsafe_names: names of the concept's objects.
    """

    def __init__(
        self,
        store: ResultsStore,
        defenses: list[str],
        prompt_sets: list[PromptSetRecord],
        observers: list[str],
        unsafe_names: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._roles = {record.name: record.role for record in prompt_sets}
        self._keys = [CellKey(each, record.name) for each in defenses for record in prompt_sets]
        self._observers = observers
        self._unsafe_names = unsafe_names
        found = {name: real_features(store, name) for name in observers}
        self._references = {name: value for name, value in found.items() if value is not None}

    def __iter__(self) -> Iterator[CellKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, key: tuple[str, str]) -> Cell:
        """Read the cell of (defense, prompt set)."""
        if key not in self._keys:
            raise KeyError(key)
        cell = CellKey(*key)
        return Cell(
            defense=cell.defense,
            prompt_set=cell.prompt_set,
            role=self._roles[cell.prompt_set],
            items=all_items(self._store, cell.prompt_set),
            observations={name: _observations(self._store, name, cell) for name in self._observers},
            unsafe_names=self._unsafe_names,
            references=self._references,
            findings=tuple(findings(self._store, cell).values()),
        )


@reads
def _observations(store: ResultsStore, observer: str, cell: CellKey) -> list[Observation]:
    query = """SELECT record, features FROM observations
        WHERE observer = ? AND defense = ? AND prompt_set = ? ORDER BY position"""
    rows = store.connection.execute(query, (observer, *cell))
    return [
        Observation(json_object(record), None if blob is None else np.frombuffer(blob, "<f4"))
        for record, blob in rows
    ]


@reads
def _number(store: ResultsStore, query: str, arguments: tuple[str, ...]) -> int:
    (number,) = store.connection.execute(query, arguments).fetchone()
    return int(number)


def _item(prompt_id: str, sample: int, text: str, seed: str, guidance: float, asked: str) -> Item:
    return Item(prompt_id, sample, text, int(seed), guidance, tuple(json.loads(asked)))
