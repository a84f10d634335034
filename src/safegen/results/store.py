"""Results store of a run folder: records in SQLite, pictures as files by content hash.

One process writes. A batch is committed as a whole after its pictures are on disk, so a process
killed at any moment leaves a store that another can continue.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from safegen.errors import SafegenError
from safegen.files import file_hash, write_atomically
from safegen.observers import Observation, ObserverIdentity
from safegen.results.database import IMAGES, Database, reads
from safegen.results.records import DefenseRecord, FindingRecord, Item, PromptSetRecord

_CONTENTS = (
    "settings", "defenses", "observers", "prompt_sets", "items", "real_features", "sessions",
)  # fmt: skip


class CellKey(NamedTuple):
    """Key of a cell of the table: the names of its defense and its prompt set."""

    defense: str
    prompt_set: str


class StoredImage(NamedTuple):
    """Record of a picture.

    Attributes:
        hash: SHA-256 of its PNG file, in hexadecimal.
        blocked: whether an output filter blacked the picture out.
        made: time of recording in seconds since 1970.
    """

    hash: str
    blocked: bool
    made: float


class ResultsStore(Database):
    """Store of a run folder, created if missing; for use in a ``with`` statement."""

    def __enter__(self) -> ResultsStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Record the settings that every picture of the run depends on, by name.

        A run without pictures starts anew.

        Raises:
            SafegenError: the run has other settings.
        """
        if not self.has_pictures():
            with self.transaction():
                for table in _CONTENTS:
                    self.connection.execute(f"DELETE FROM {table}")
        for name, value in settings.items():
            self._keep("settings", name, value)

    def keep_defense(self, record: DefenseRecord) -> None:
        """Record a defense.

        Raises:
            SafegenError: one of this name has other settings.
        """
        self._keep("defenses", record.name, record.settings)

    @reads
    def has_pictures(self) -> bool:
        """Test whether the run has a picture."""
        return self.connection.execute("SELECT 1 FROM images LIMIT 1").fetchone() is not None

    @reads
    def drawn_defenses(self) -> set[str]:
        """Return the names of the defenses that have a picture."""
        query = """SELECT name FROM defenses
            WHERE EXISTS (SELECT 1 FROM images WHERE images.defense = defenses.name)"""
        return {name for (name,) in self.connection.execute(query)}

    def keep_observer(self, identity: ObserverIdentity) -> None:
        """Record an observer.

        Raises:
            SafegenError: one of this name has other settings.
        """
        self._keep("observers", identity.name, identity.settings)

    def keep_prompt_set(self, record: PromptSetRecord, items: Iterable[tuple[int, Item]]) -> None:
        """Record a prompt set and its items with their batches, which are read lazily.

        Raises:
            SafegenError: one of this name has another identity or role.
        """
        value = {"role": record.role, **record.identity}
        if self._keep("prompt_sets", record.name, value, check_only=True):
            return
        rows = (
            (record.name, position, batch, *_item_row(item))
            for position, (batch, item) in enumerate(items)
        )
        with self.transaction():
            self.connection.executemany(f"INSERT INTO items VALUES ({_marks(9)})", rows)
            self._insert("prompt_sets", record.name, value)

    def _keep(self, table: str, name: str, value: Any, check_only: bool = False) -> bool:
        """Record a JSON value under a name; return whether it was recorded before."""
        found = self._found(table, name)
        if found is None:
            if not check_only:
                with self.transaction():
                    self._insert(table, name, value)
            return False
        (kept,), asked = found, json.loads(_json(value))
        if kept != asked:
            what = f"the {table.replace('_', ' ').removesuffix('s')} {name}"
            raise SafegenError(
                f"{self.folder}: holds results of other settings, and results made differently "
                f"are never put in one table: {what if table != 'settings' else name} "
                f"{difference(kept, asked)}; give another folder with --out"
            )
        return True

    @reads
    def _found(self, table: str, name: str) -> tuple[Any] | None:
        """Return the JSON value under a name; None without one."""
        query = f"SELECT * FROM {table} WHERE name = ?"
        row = self.connection.execute(query, (name,)).fetchone()
        return row and (json.loads(row[1]),)

    def _insert(self, table: str, name: str, value: Any) -> None:
        self.connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (name, _json(value)))

    def keep_real(self, identity: Mapping[str, Any]) -> None:
        """Record the identity of the real pictures.

        Raises:
            SafegenError: the store has features of other real pictures.
        """
        self._keep("settings", "real", identity)

    def kept(self, name: str) -> Any:
        """Return a recorded setting; None if it is not recorded."""
        found = self._found("settings", name)
        return found and found[0]

    def keep_attacker(self, attacker: Mapping[str, Any]) -> None:
        """Record the attacker: its judge, its CLIP model, and its concept.

        Raises:
            SafegenError: the store has findings of another attacker.
        """
        self._keep("settings", "attacker", attacker)

    def add_pictures(
        self,
        cell: CellKey,
        positions: Sequence[int],
        pictures: Sequence[tuple[bytes, bool]],
        findings: Sequence[FindingRecord] | None = None,
    ) -> None:
        """Write a batch's PNG files, then their records, each with whether it was blocked.

        Args:
            cell: cell of the pictures.
            positions: positions of the items.
            pictures: PNG files, and whether each was blocked.
            findings: findings of the attack that drew them; None without an attack.
        """
        rows = []
        for position, (png, blocked) in zip(positions, pictures, strict=True):
            digest = hashlib.sha256(png).hexdigest()
            path = image_path(self.folder, digest)
            if not path.is_file() or file_hash(path) != digest:
                write_atomically(path, png)
            rows.append((*cell, position, digest, blocked, time.time()))
        with self.transaction():
            self.connection.executemany(f"INSERT INTO images VALUES ({_marks(6)})", rows)
            if findings is not None:
                found = zip(positions, findings, strict=True)
                rows = [(*cell, position, *_finding_row(each)) for position, each in found]
                self.connection.executemany(f"INSERT INTO findings VALUES ({_marks(8)})", rows)

    def add_observations(
        self,
        observer: str,
        cell: CellKey,
        positions: Sequence[int],
        observations: Sequence[Observation],
    ) -> None:
        """Record an observer's observations of some of a cell's pictures."""
        rows = [
            (observer, *cell, position, _json(seen.values), _blob(seen.features))
            for position, seen in zip(positions, observations, strict=True)
        ]
        with self.transaction():
            self.connection.executemany(f"INSERT INTO observations VALUES ({_marks(6)})", rows)

    def add_real_features(self, observer: str, batch: int, features: np.ndarray) -> None:
        """Record an observer's features (N, D) of a batch of real pictures."""
        row = (observer, batch, features.shape[1], _blob(features))
        with self.transaction():
            self.connection.execute(f"INSERT INTO real_features VALUES ({_marks(4)})", row)


def image_path(folder: Path, digest: str) -> Path:
    """Return the path of the picture of a hash in a run folder."""
    return folder / IMAGES / digest[:2] / f"{digest}.png"


def difference(kept: Any, asked: Any, place: str = "") -> str:
    """Describe the difference between two unequal JSON values."""
    if isinstance(kept, dict) and isinstance(asked, dict):
        for key in [*kept, *asked]:
            if key not in kept or key not in asked or kept[key] != asked[key]:
                inner = f"{place}.{key}" if place else str(key)
                return difference(kept.get(key), asked.get(key), inner)
    values = (json.dumps(kept), json.dumps(asked))
    was, now = (text if len(text) <= 60 else f"{text[:57]}..." for text in values)
    if was == now:
        was, now = "one value", "another"
    return f"{f'has {place}' if place else 'is'} {was} there and {now} here"


def _item_row(item: Item) -> tuple[Any, ...]:
    # Seeds of published files can exceed SQLite's integers.
    return (
        item.prompt_id,
        item.sample,
        item.text,
        str(item.seed),
        item.guidance,
        _json(item.asked),
    )


def _finding_row(found: FindingRecord) -> tuple[Any, ...]:
    return (found.text, found.score, found.pictures, found.passes, _json(found.details))


def json_object(text: str) -> dict[str, Any]:
    """Parse a record's text.

    Raises:
        ValueError: the text is no JSON object.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("a record is no JSON object")
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _blob(features: np.ndarray | None) -> bytes | None:
    return None if features is None else np.ascontiguousarray(features, "<f4").tobytes()


def _marks(count: int) -> str:
    return ", ".join("?" * count)
