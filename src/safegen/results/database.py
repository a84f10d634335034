"""SQLite file of a run folder: its tables, its one writer, and its errors, each in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from safegen.errors import SafegenError

STORE_FILE = "store.sqlite"
LOCK_FILE = "store.lock"
IMAGES = "images"
_ELSEWHERE = "give another folder with --out"
_MEND = f"put a copy of it back, or {_ELSEWHERE}"
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE defenses (name TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE observers (name TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE prompt_sets (name TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE items (
    prompt_set TEXT, position INTEGER, batch INTEGER NOT NULL, prompt_id TEXT NOT NULL,
    sample INTEGER NOT NULL, text TEXT NOT NULL, seed TEXT NOT NULL, guidance REAL NOT NULL,
    asked TEXT NOT NULL, PRIMARY KEY (prompt_set, position)) WITHOUT ROWID;
CREATE INDEX items_by_batch ON items (prompt_set, batch);
CREATE TABLE images (
    defense TEXT, prompt_set TEXT, position INTEGER, hash TEXT NOT NULL,
    blocked INTEGER NOT NULL, made REAL NOT NULL,
    PRIMARY KEY (defense, prompt_set, position)) WITHOUT ROWID;
CREATE TABLE observations (
    observer TEXT, defense TEXT, prompt_set TEXT, position INTEGER, record TEXT NOT NULL,
    features BLOB, PRIMARY KEY (observer, defense, prompt_set, position));
CREATE TABLE real_features (
    observer TEXT, batch INTEGER, width INTEGER NOT NULL, features BLOB NOT NULL,
    PRIMARY KEY (observer, batch));
"""
_FINDINGS = """
CREATE TABLE findings (
    defense TEXT, prompt_set TEXT, position INTEGER, text TEXT, score REAL NOT NULL,
    pictures INTEGER NOT NULL, passes INTEGER NOT NULL, details TEXT NOT NULL,
    PRIMARY KEY (defense, prompt_set, position)) WITHOUT ROWID;
"""
_SESSIONS = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, status TEXT NOT NULL,
    code TEXT NOT NULL);
"""
_UPGRADES = (_TABLES, _FINDINGS, _SESSIONS)
"""Upgrades to each schema from the one before."""
SCHEMA = len(_UPGRADES)
_PARTS = """
    SELECT part.type || ' ' || part.name || ifnull('.' || field.name, '')
    FROM sqlite_master AS part LEFT JOIN pragma_table_info(part.name) AS field
    WHERE part.name NOT LIKE 'sqlite_%'"""

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """SQLite database of a run folder, which this process alone writes while it is open.

    Args:
        folder: run folder; created if missing.

    Raises:
        SafegenError: another process has the database open, or it is damaged, foreign or newer.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise SafegenError(f"{folder}: is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / STORE_FILE
        self._lock = _locked(folder)
        try:
            self.connection = self._open()
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the database, so that other processes may write."""
        self.connection.close()
        self._lock.close()

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Report data in the block that cannot be read, or was changed, as damage."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, LookupError, OverflowError) as error:
            raise self._damage(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that the block writes, or nothing."""
        try:
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            raise SafegenError(
                f"{self.file}: cannot be written ({error}); free some space or check the "
                "permissions, then the same command goes on"
            ) from error
        except sqlite3.Error as error:
            raise self._damage(error) from error

    def _damage(self, error: object) -> SafegenError:
        return SafegenError(
            f"{self.file}: is damaged or was changed by another program ({error}); {_MEND}"
        )

    def _open(self) -> sqlite3.Connection:
        try:
            with ExitStack() as opened:
                connection = sqlite3.connect(self.file, isolation_level=None)
                opened.enter_context(closing(connection))
                self._prepare(connection)
                opened.pop_all()
                return connection
        except sqlite3.Error as error:
            raise SafegenError(
                f"{self.file}: cannot be used as a results store ({error}); {_MEND}"
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        if version > SCHEMA:
            raise SafegenError(
                f"{self.file}: was written by a newer safegen (schema {version}, known up to "
                f"{SCHEMA}); update safegen"
            )
        if version < 1 and (version < 0 or _columns(connection)):
            raise sqlite3.DatabaseError("it is another program's")
        if version < 1 and (self.folder / IMAGES).is_dir():
            raise sqlite3.DatabaseError("it holds nothing of the pictures beside it")
        connection.execute("PRAGMA journal_mode = WAL")
        # Enough against killed processes; a power cut may cost the last batches, no more.
        connection.execute("PRAGMA synchronous = NORMAL")
        _upgrade(connection, version)
        if missing := _all_columns() - _columns(connection):
            raise sqlite3.DatabaseError(f"it lacks {min(missing)}")


def reads(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function that reads a database, its first argument, report damage in one line."""

    @wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        database = args[0]
        assert isinstance(database, Database)
        with database.readable():
            return function(*args, **kwargs)

    return read


def _locked(folder: Path) -> sqlite3.Connection:
    """Take a lock, held until the connection closes or the process dies."""
    file = folder / LOCK_FILE
    try:
        with ExitStack() as opened:
            lock = sqlite3.connect(file, timeout=0, isolation_level=None)
            opened.enter_context(closing(lock))
            lock.execute("BEGIN EXCLUSIVE")
            opened.pop_all()
            return lock
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            message = f"{folder}: another evaluation is writing there; wait for its end"
        else:
            message = f"{file}: cannot be locked ({error}); check the permissions"
        raise SafegenError(f"{message}, or {_ELSEWHERE}") from error


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    for schema in range(version + 1, SCHEMA + 1):
        upgrade = f"{_UPGRADES[schema - 1]} PRAGMA user_version = {schema};"
        connection.executescript(f"BEGIN; {upgrade} COMMIT;")


def _columns(connection: sqlite3.Connection) -> set[str]:
    """List all parts of a database: ``table images.hash``, ``index items_by_batch``."""
    return {name for (name,) in connection.execute(_PARTS)}


@cache
def _all_columns() -> set[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        _upgrade(connection, 0)
        return _columns(connection)
