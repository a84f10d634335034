"""Entries of a leaderboard: one figure each, with all that tells how it came about.

They come from runs, or from a file of others, whose columns are the fields of ``Entry``. A
leaderboard's CSV is such a file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_type_hints

from safegen.errors import SafegenError
from safegen.metrics import METRICS
from safegen.report.budgets import attack_kind
from safegen.report.measures import measure
from safegen.results.records import Role, Table
from safegen.settings import suggestion

CHANGES = ("nothing", "weights", "sampling", "output", "model", "unknown")
"""What a defense may change, joined by ``+`` for a stack."""
LONGEST = 2000
"""Characters of a text."""
_ALIKE = (
    "model", "sampling", "samples", "seed", "precision", "device", "observers", "unsafe_names",
    "attacker", "concept",
)  # fmt: skip
"""Parts of a run's provenance that figures must share to compare."""
_FOLDERS = re.compile(r"(?<![\w./~-])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\,+=:]+[/\\])+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        model: name of the model.
        defense: name of the defense.
        prompt_set: name of the prompt set, or of the attack on it.
        role: role of the prompt set.
        metric: registered name of the metric.
        value: the figure; shares are fractions.
        count: number of items behind it.
        date: day of the measurement (ISO 8601).
        measured: how it was measured, in words; figures compare where model and these are equal.
        low, high: ends of the 95 % interval, if it has one.
        changes: what the defense changes: ``weights``, or ``weights+sampling`` for a stack.
        attack: side and access of the attack; empty for prompts that are drawn as they stand.
        prompts: what tells apart sets of one name, such as a digest.
        command: command that repeats it.
        origin: run or file that it comes from.
    """

    model: str
    defense: str
    prompt_set: str
    role: Role
    metric: str
    value: float
    count: int
    date: str
    measured: str
    low: float | None = None
    high: float | None = None
    changes: str = "unknown"
    attack: str = ""
    prompts: str = ""
    command: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, str):
                _check_text(name, value)
        if self.role not in get_args(Role):
            raise SafegenError(f"role must be {' or '.join(get_args(Role))}, not {self.role!r}")
        if self.metric not in METRICS.names():
            raise SafegenError(
                f"metric {self.metric!r} is unknown{suggestion(self.metric, METRICS.names())}"
            )
        strange = [each for each in self.changes.split("+") if each not in CHANGES]
        if strange:
            raise SafegenError(f"changes must be of {', '.join(CHANGES)}, not {strange[0]!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.count < 1:
            raise SafegenError(f"count must be 1 or more, not {self.count}")
        try:
            date.fromisoformat(self.date)
        except ValueError:
            raise SafegenError(f"date must be like 2026-01-31, not {self.date!r}") from None
        ends = [each for each in (self.low, self.value, self.high) if each is not None]
        if not all(map(math.isfinite, ends)):
            raise SafegenError("value, low and high must be finite numbers")
        if ends != sorted(ends):
            raise SafegenError("low, value and high must ascend")
        if (self.low is None) != (self.high is None):
            raise SafegenError("low and high go together; give both or neither")
        if measure(self.metric).is_share and max(ends) > 1:
            raise SafegenError(f"{self.metric} is a share, so at most 1: 0.97 for 97 %")


FIELDS = tuple(each.name for each in fields(Entry))
REQUIRED = tuple(each.name for each in fields(Entry) if each.default is MISSING)
KINDS = get_type_hints(Entry)


def entries_of(table: Table, origin: str) -> Iterator[Entry]:
    """Yield the entries of a run's table, without the folders of absolute paths.

    Args:
        table: table of the run.
        origin: name of the run.
    """
    told = table.provenance
    model = told.get("model") or {}
    run = told.get("run") or {}
    defenses = {record.name: record for record in table.defenses}
    sets = {record.name: record for record in table.prompt_sets}
    shared = {
        "model": without_folders(model.get("name", "unknown")),
        "date": str(run.get("finished") or run.get("started") or "")[:10],
        "measured": measured_by(table),
        "command": without_folders(told.get("command", "")),
        "origin": origin,
    }
    if not shared["date"]:
        raise SafegenError(f"{origin}: does not tell when it ran; repeat its command once")
    for (defense, prompt_set, metric), found in table.figures.items():
        record = sets[prompt_set]
        low, high = found.interval or (None, None)
        yield Entry(
            defense=defense,
            prompt_set=prompt_set,
            role=record.role,
            metric=metric,
            value=found.value,
            count=found.count,
            low=low,
            high=high,
            changes=defenses[defense].changes,
            attack=attack_kind(record) if record.attack else "",
            prompts=_digest({"role": record.role, **record.identity}),
            **shared,
        )


def measured_by(table: Table) -> str:
    """Describe how a run measured, with a digest of all that its figures depend on."""
    told = table.provenance
    sampling, observers = told.get("sampling") or {}, told.get("observers") or {}
    judge = observers.get("detector") or {}
    words = [
        f"{sampling.get('steps', '?')} steps of {sampling.get('sampler', '?')} at guidance "
        f"{sampling.get('guidance_scale', '?')}",
        f"{told.get('samples', 1)} a prompt",
        f"detector {judge.get('name', 'none')} {judge.get('version', '')} at "
        f"{judge.get('threshold', '?')}",
    ]
    digest = _digest({key: told.get(key) for key in _ALIKE})
    return f"{', '.join(words)} [{digest}]"


def without_folders(text: str) -> str:
    """Cut the folders of absolute paths, which tell of one machine alone."""
    return _FOLDERS.sub("", text)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_entries(path: Path) -> list[Entry]:
    """Read the entries of a file: CSV with a header, or JSON with a list of objects.

    Raises:
        SafegenError: the file cannot be read, or a row does not fit; the message names the row.
    """
    return [_entry(path, number, row) for number, row in enumerate(_rows(path), start=1)]


def check_distinct(entries: Iterable[Entry]) -> None:
    """Refuse two figures for one place in one table.

    Raises:
        SafegenError: two entries of one origin differ in nothing but the figure.
    """
    seen = set()
    for each in entries:
        row = (each.origin, each.model, each.measured, each.defense)
        place = (row, each.metric, each.prompt_set, each.prompts)
        if place in seen:
            raise SafegenError(
                f"{each.origin}: gives {each.metric} of {each.defense} on {each.prompt_set} twice; "
                "leave one out, or tell them apart in the column prompts"
            )
        seen.add(place)


def csv_text(entries: Iterable[Entry]) -> str:
    """Write entries as the CSV that ``read_entries`` reads."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return buffer.getvalue()


def _rows(path: Path) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise SafegenError(f"{path}: rows of others come as .csv or .json; convert it")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if suffix == ".json" else _csv_rows(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise SafegenError(f"{path}: cannot be read ({error}); check the file") from error
    if not isinstance(rows, list) or not rows:
        raise SafegenError(f"{path}: holds no list of rows; give each row {', '.join(REQUIRED)}")
    return rows


def _csv_rows(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    # An empty cell is a missing one; cells beyond the header stand under None.
    return [{key: value for key, value in row.items() if value != ""} for row in reader]


def _entry(path: Path, number: int, row: Any) -> Entry:
    where = f"{path} row {number}: "
    if not isinstance(row, Mapping):
        raise SafegenError(f"{where}is no object; give {', '.join(REQUIRED)}")
    strange = [key for key in row if key not in FIELDS]
    if strange:
        hint = suggestion(str(strange[0]), FIELDS) or f"; known: {', '.join(FIELDS)}"
        raise SafegenError(f"{where}unknown column {strange[0]!r}{hint}")
    lacking = [name for name in REQUIRED if row.get(name) in (None, "")]
    if lacking:
        raise SafegenError(f"{where}{lacking[0]} is missing; every row needs it")
    given = {name: value for name, value in row.items() if value is not None}
    values = {name: _value(where, name, value) for name, value in given.items()}
    try:
        return Entry(**{"origin": path.name, **values})
    except SafegenError as error:
        raise SafegenError(f"{where}{error}") from error


def _value(where: str, name: str, value: Any) -> Any:
    """Convert a cell to its field's type."""
    kind = KINDS[name]
    if kind is int or kind is float or float in get_args(kind):
        wanted: Any = int if kind is int else float
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
            if wanted is int and number != int(number):
                raise ValueError
            return wanted(number)
        except (TypeError, ValueError, OverflowError):
            what = "a whole number" if wanted is int else "a number"
            raise SafegenError(f"{where}{name} must be {what}, not {value!r:.60}") from None
    if not isinstance(value, str):
        raise SafegenError(f"{where}{name} must be a text, not {value!r:.60}")
    return value


def _check_text(name: str, value: str) -> None:
    if len(value) > LONGEST or _CONTROL.search(value):
        raise SafegenError(
            f"{name} must be one line of at most {LONGEST} characters without control characters"
        )
