"""Prompt sets from files: shared options, columns, ids, seeds and subsets."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.prompts import Prompt, PromptSetIdentity
from safegen.prompts._places import locate
from safegen.prompts._records import CSV, HEADLESS_CSV, Format, Record, column_name
from safegen.seeds import sample_seed

SPLITS = ("train", "train", "train", "validation", "held-out")
"""Split of a file's records by their number."""
SEED_COLUMNS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE_COLUMNS = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
CATEGORY_COLUMNS = ("categories", "category")
_RECORDED_ELSEWHERE = ("name", "place", "file", "local_files_only")
_SEED = re.compile(r"(\d{1,20})(\.0*)?", re.ASCII)
_HARMLESS = re.compile(r"[-+.\dEe]{0,30}|[-+]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Columns of a file by content; None if missing."""

    text: str
    seed: str | None
    guidance: str | None
    categories: str | None
    id: str | None


@dataclass(frozen=True)
class FilePrompts:
    """Prompts of a file.

    An id is the set's name with the file's own id, or with the record's number in the file, so it
    does not depend on the subset. A file without seeds gets ``sample_seed`` of the ids.

    Args:
        place: the file, or ``OWNER/NAME`` of a data set on the Hugging Face hub.
        column: column of the prompts, if not one of ``text_columns``.
        count: number of prompts; None means all.
        subset_seed: seed that draws them (None: take the first). The order is the file's.
        header: ``none`` if the first row of a CSV is a prompt already; its columns are then named
            ``1``, ``2`` and so on.
        split: one of three disjoint parts of the file: three of five records train, one validates,
            one is held out (None: all).
        empty: ``skip`` to skip rows without a prompt, with a log entry; ids do not shift.
        file: file of the data set on the hub.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the file, or the column of the prompts, is missing, or an option is out of
            range. No message quotes a prompt.
    """

    place: str
    column: str | None = None
    count: int | None = None
    subset_seed: int | None = None
    header: Literal["none"] | None = None
    empty: Literal["skip"] | None = None
    split: str | None = None
    file: str | None = None
    local_files_only: bool = False

    kind: ClassVar[str]
    text_columns: ClassVar[tuple[str, ...]] = ("prompt",)
    id_columns: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[Mapping[str, Format]] = {".csv": CSV}
    hub_file: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise SafegenError(f"prompts {self.kind}: count must be at least 1, not {self.count}")
        if not self.name.strip():
            raise SafegenError(f"prompts {self.kind}: name must not be empty; leave it out")
        if self.count is None and self.subset_seed != type(self).subset_seed:
            raise SafegenError(f"prompts {self.kind}: subset_seed draws nothing without count=N")
        for option, only in (("header", "none"), ("empty", "skip")):
            if (value := getattr(self, option)) not in (None, only):
                raise SafegenError(
                    f"prompts {self.kind}: {option} can only be {only}, not {value!r}; leave it out"
                )
        if self.split not in (None, *SPLITS):
            raise SafegenError(
                f"prompts {self.kind}: split must be {' or '.join(dict.fromkeys(SPLITS))}, "
                f"not {self.split!r}; leave it out for all prompts"
            )
        _ = self._columns

    @property
    def name(self) -> str:
        """Name of the set in tables and at the start of its ids."""
        return self.kind

    @property
    def selection(self) -> str:
        """Selected part of the file, for the message that it is empty."""
        return ""

    @property
    def _asked(self) -> str:
        """Prompts of the selection and the split, for messages."""
        return f"prompts{self.selection}" + (f" of the split {self.split}" if self.split else "")

    @functools.cached_property
    def identity(self) -> PromptSetIdentity:
        """See ``PromptSet.identity``."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return PromptSetIdentity(
            name=self.name,
            source=self._located[1],
            file_hash=file_hash(self.path),
            seeds="file" if self._columns.seed else "derived",
            own_guidance=self._columns.guidance is not None,
            options={
                key: value
                for key, value in options.items()
                if key not in _RECORDED_ELSEWHERE and value not in (None, ())
            },
        )

    @property
    def path(self) -> Path:
        """Path of the file on this machine."""
        return self._located[0]

    def __iter__(self) -> Iterator[Prompt]:
        """See ``PromptSet.__iter__``."""
        chosen = self._chosen()
        found = 0
        for prompt in self._all():
            if found == self.count:
                return
            if chosen is None or prompt.id in chosen:
                found += 1
                yield prompt
        if self.count is not None and found < self.count:
            raise SafegenError(
                f"{self.path}: has {found} {self._asked}, not {self.count}; "
                "ask for fewer, or for count=all"
            )

    def keeps(self, record: Record) -> bool:  # noqa: ARG002
        """Tell whether a record belongs to the set; by default, all do."""
        return True

    def _all(self) -> Iterator[Prompt]:
        seen: set[str] = set()
        for record in self._format.records(self.path):
            in_split = self.split in (None, SPLITS[record.number % len(SPLITS)])
            if not in_split or not self.keeps(record):
                continue
            if self.empty == "skip" and not self._text(record):
                _tell(f"{self.path} {record.where}: holds no prompt and is passed over")
                continue
            prompt = self._prompt(record)
            if prompt.id in seen:
                raise self._bad(record, "has the id of an earlier row; give each row its own")
            seen.add(prompt.id)
            yield prompt
        if not seen:
            mend = "check the file"
            if self.split is not None:
                mend += f", which needs {len(SPLITS)} or more: they go to the splits in turn"
            raise SafegenError(f"{self.path}: holds no {self._asked}; {mend}")

    def _chosen(self) -> set[str] | None:
        """Choose the subset's ids: the smallest hashes, so larger subsets contain smaller ones."""
        if self.subset_seed is None or self.count is None:
            return None
        ids = (prompt.id for prompt in self._all())
        return set(heapq.nsmallest(self.count, ids, key=self._rank))

    def _rank(self, prompt_id: str) -> bytes:
        return hashlib.sha256(f"{self.subset_seed}/{prompt_id}".encode()).digest()

    def _prompt(self, record: Record) -> Prompt:
        columns = self._columns
        key = self._words(record, columns.id) if columns.id else f"{record.number:06d}"
        prompt_id = f"{self.name}-{key}"
        seed = self._seed(record, columns.seed) if columns.seed else sample_seed(prompt_id)
        return Prompt(
            id=prompt_id,
            text=self._words(record, columns.text),
            seed=seed,
            guidance=self._guidance(record, columns.guidance) if columns.guidance else None,
            categories=categories_of(record.fields.get(columns.categories or "")),
            line=record.line,
        )

    def _text(self, record: Record) -> Any:
        """Read the prompt's field; false if it is empty."""
        value = record.fields.get(self._columns.text)
        return value.strip() if isinstance(value, str) else value

    def _words(self, record: Record, column: str) -> str:
        value = self._text(record) if column == self._columns.text else record.fields.get(column)
        words = str(value) if type(value) is int else value
        if not isinstance(words, str) or not words.strip():
            also = (
                ", or pass over all such rows: empty=skip" if column == self._columns.text else ""
            )
            raise self._bad(record, f"has no text in {column}; write it or delete the row{also}")
        try:
            words.encode()
        except UnicodeEncodeError:
            raise self._bad(record, f"has half a character in {column}; write it anew") from None
        return words.strip()

    def _seed(self, record: Record, column: str) -> int:
        value = record.fields.get(column, "")
        # A spreadsheet or data frame may have written 12 as 12.0.
        match = _SEED.fullmatch(str(value).strip())
        if match is None or int(match[1]) >= 2**64:
            raise self._bad(
                record,
                f"has {_shown(value)} as {column}, which is no whole number from 0 to 2^64 - 1; "
                "correct it, or remove the column from the file",
            )
        return int(match[1])

    def _guidance(self, record: Record, column: str) -> float:
        value = record.fields.get(column, "")
        try:
            guidance = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            guidance = math.nan
        if not math.isfinite(guidance):
            raise self._bad(
                record,
                f"has {_shown(value)} as {column}, which is no number; "
                "correct it, or remove the column from the file",
            )
        return guidance

    def _bad(self, record: Record, problem: str) -> SafegenError:
        return SafegenError(f"{self.path} {record.where}: {problem}")

    @functools.cached_property
    def _located(self) -> tuple[Path, str]:
        return locate(self.place, self.file, self.hub_file, self.local_files_only)

    @functools.cached_property
    def _format(self) -> Format:
        found = self.formats.get(self.path.suffix.lower())
        if found is None:
            raise SafegenError(
                f"{self.path}: prompts {self.kind} come as {' or '.join(self.formats)}; "
                "convert it, or give another file"
            )
        if self.header and found is not CSV:
            raise SafegenError(f"{self.path}: header={self.header} is for a CSV; leave it out")
        return HEADLESS_CSV if self.header else found

    @functools.cached_property
    def _columns(self) -> Columns:
        names = self._format.columns(self.path)
        texts = tuple(names) if self.header and len(names) == 1 else self.text_columns
        if self.column is not None:
            texts = (column_name(self.column),)
        text = self._column(names, texts)
        if text is None:
            raise SafegenError(self._no_column(texts, len(names)))
        return Columns(
            text=text,
            seed=self._column(names, SEED_COLUMNS),
            guidance=self._column(names, GUIDANCE_COLUMNS),
            categories=self._column(names, CATEGORY_COLUMNS),
            id=self._column(names, self.id_columns),
        )

    def _no_column(self, wanted: tuple[str, ...], count: int) -> str:
        """Word the message without the file's column names, which without a header are prompts."""
        if self.header:
            return f"{self.path}: has columns 1 to {count}; say which holds the prompts: column=1"
        also = "; if its first row is a prompt already: header=none" if self._format is CSV else ""
        return (
            f"{self.path}: has no column {' or '.join(wanted)} among its {count}; say which one "
            f"holds the prompts: column=NAME{also}"
        )

    def _column(self, names: list[str], wanted: tuple[str, ...]) -> str | None:
        """Find the first wanted name among the file's columns."""
        found = next((name for name in wanted if name in names), None)
        if found is not None and names.count(found) > 1:
            raise SafegenError(f"{self.path}: names the column {found} twice; keep one")
        return found


def _shown(value: Any) -> str:
    """Format a value for a message; a text that may be part of a prompt is not quoted."""
    harmless = not isinstance(value, str | list | dict) or _HARMLESS.fullmatch(str(value).strip())
    return f"{value!r:.60}" if harmless else "a text"


@functools.cache
def _tell(note: str) -> None:
    """Log a note, once per set even if it is iterated repeatedly."""
    logging.getLogger(__name__).warning(note)


def categories_of(value: Any) -> tuple[str, ...]:
    """Split a cell (``hate, violence``) or a list of texts into categories."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        return ()
    return tuple(part.strip().lower() for part in map(str, parts) if part.strip())
