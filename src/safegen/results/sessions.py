"""Sessions: the commands that added to a run, with times, status and code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from safegen.errors import SafegenError
from safegen.results.database import reads
from safegen.results.store import ResultsStore, json_object
from safegen.version import Code, other_code

_UNKNOWN: Code = {"safegen": "an unrecorded version"}
"""Code of results from before stores had sessions."""


class Session(NamedTuple):
    """Work of one command on a run.

    Attributes:
        started, finished: times in UTC (ISO 8601); the end of a killed command is not known.
        status: state at its end.
        code: code that drew and observed.
    """

    started: str
    finished: str | None
    status: Literal["running", "interrupted", "complete"]
    code: Code


@reads
def sessions(store: ResultsStore) -> list[Session]:
    """List all sessions of the run, in order."""
    query = "SELECT started, finished, status, code FROM sessions ORDER BY number"
    rows = store.connection.execute(query)
    return [Session(begun, end, status, json_object(code)) for begun, end, status, code in rows]


def check_code(store: ResultsStore, code: Code) -> None:
    """Check that results of this code are comparable with existing ones.

    Raises:
        SafegenError: existing results come from other code.
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


@contextmanager
def session(store: ResultsStore, code: Code) -> Iterator[None]:
    """Record the code that adds to the run in the block, the times, and the status."""
    begin = "INSERT INTO sessions (started, status, code) VALUES (?, 'running', ?)"
    with store.transaction():  # no other process has the store open, so what ran was killed
        store.connection.execute(
            "UPDATE sessions SET status = 'interrupted' WHERE status = 'running'"
        )
        number = store.connection.execute(begin, (_now(), json.dumps(dict(code)))).lastrowid
    try:
        yield
    except BaseException:
        with suppress(SafegenError):  # the cause is reported, not its consequence
            _end(store, number, "interrupted")
        raise
    _end(store, number, "complete")


def _end(store: ResultsStore, number: int | None, status: str) -> None:
    query = "UPDATE sessions SET finished = ?, status = ? WHERE number = ?"
    with store.transaction():
        store.connection.execute(query, (_now(), status, number))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
