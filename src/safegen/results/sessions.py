"""The commands that added to a run: when, to which end, and with which code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from safegen.errors import SafegenError
from safegen.results.database import reads
from safegen.results.store import ResultsStore, json_object

Code = Mapping[str, str]
"""Versions of all that draws and looks: of packages, and the digest of safegen's ``source``."""
_ONLY_TOLD = ("safegen", "python")
"""Versions that are recorded and not compared; of safegen, the digest of its source is."""
_UNKNOWN: Code = {"safegen": "an unrecorded version"}
"""What drew before a store had sessions."""


class Session(NamedTuple):
    """A command's work on a run.

    Attributes:
        started, finished: times in UTC (ISO 8601); the end of a killed one is not known.
        status: how far it came.
        code: that drew and looked.
    """

    started: str
    finished: str | None
    status: Literal["running", "interrupted", "complete"]
    code: Code


@reads
def sessions(store: ResultsStore) -> list[Session]:
    """All that ever added to the run, in order."""
    query = "SELECT started, finished, status, code FROM sessions ORDER BY number"
    rows = store.connection.execute(query)
    return [Session(begun, end, status, json_object(code)) for begun, end, status, code in rows]


def check_code(store: ResultsStore, code: Code) -> None:
    """See that results of this code can stand beside those that are there.

    Raises:
        SafegenError: those that are there come from other code.
    """
    known = [each.code for each in sessions(store)]
    if not known and store.has_pictures():
        known = [_UNKNOWN]
    for made in known:
        if differs := other_code(made, code):
            raise SafegenError(
                f"{store.folder}: holds results of other code, and they are not put in one table "
                f"with new ones: {differs}; use the same, give another folder with --out, or go "
                "on with --allow-other-code"
            )


def other_code(made: Code, code: Code) -> str | None:
    """What differs between the code that made a result and this one, in words; None if nothing
    that results depend on does."""
    compared = (name for name in code if name not in _ONLY_TOLD)
    changed = next((name for name in compared if made.get(name) != code[name]), None)
    if changed is None:
        return None
    name = changed if changed in made and changed != "source" else "safegen"
    return f"{name} is {made.get(name)} there and {code[name]} here"


@contextmanager
def session(store: ResultsStore, code: Code) -> Iterator[None]:
    """Record who adds to the run in the block, when, and whether to the end."""
    begin = "INSERT INTO sessions (started, status, code) VALUES (?, 'running', ?)"
    with store.transaction():  # nobody else has the store open, so what ran was killed
        store.connection.execute(
            "UPDATE sessions SET status = 'interrupted' WHERE status = 'running'"
        )
        number = store.connection.execute(begin, (_now(), json.dumps(dict(code)))).lastrowid
    try:
        yield
    except BaseException:
        with suppress(SafegenError):  # what ended the work is told, not what follows from it
            _end(store, number, "interrupted")
        raise
    _end(store, number, "complete")


def _end(store: ResultsStore, number: int | None, status: str) -> None:
    query = "UPDATE sessions SET finished = ?, status = ? WHERE number = ?"
    with store.transaction():
        store.connection.execute(query, (_now(), status, number))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
