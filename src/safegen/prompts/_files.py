"""What all prompt sets from files share: their options, columns, ids, seeds and subsets."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.prompts import Prompt, PromptSetIdentity
from safegen.prompts._places import locate
from safegen.prompts._records import CSV, Format, Record, column_name
from safegen.seeds import sample_seed

SEED_COLUMNS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE_COLUMNS = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
CATEGORY_COLUMNS = ("categories", "category")
_RECORDED_ELSEWHERE = ("name", "place", "file", "local_files_only")
_SEED = re.compile(r"(\d{1,20})(\.0*)?", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """Which of a file's columns holds what; None for what it has not."""

    text: str
    seed: str | None
    guidance: str | None
    categories: str | None
    id: str | None


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of a file.

    An id is the set's name with the file's own id, or with the record's number in the file, so
    it depends on no choice of a subset. A file without seeds gets ``sample_seed`` of the ids.

    Args:
        place: the file, or ``OWNER/NAME`` of a data set on the Hugging Face hub.
        column: the column with the prompts, if not one of ``text_columns``.
        count: how many; all if None.
        subset_seed: which they are: drawn by this seed, or the first if None. The order is the
            file's.
        file: which file of the data set on the hub.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the file, or the column with the prompts, is missing, or an option is out
            of range.
    """

    place: str
    column: str | None = None
    count: int | None = None
    subset_seed: int | None = None
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
        _ = self._columns

    @property
    def name(self) -> str:
        """What tables call the set, and what its ids begin with."""
        return self.kind

    @property
    def selection(self) -> str:
        """What is kept of the file, for the message that there is none of it."""
        return ""

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
        """The file on this machine."""
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
                f"{self.path}: has {found} prompts{self.selection}, not {self.count}; "
                "ask for fewer, or for count=all"
            )

    def keeps(self, record: Record) -> bool:  # noqa: ARG002
        """Whether a record belongs to the set; all do unless a set says otherwise."""
        return True

    def _all(self) -> Iterator[Prompt]:
        seen: set[str] = set()
        for record in self._format.records(self.path):
            if not self.keeps(record):
                continue
            prompt = self._prompt(record)
            if prompt.id in seen:
                raise self._bad(record, f"has the id {prompt.id} again; give each row its own")
            seen.add(prompt.id)
            yield prompt
        if not seen:
            raise SafegenError(f"{self.path}: holds no prompts{self.selection}; check the file")

    def _chosen(self) -> set[str] | None:
        """Ids of the subset: the smallest hashes, so a larger subset contains a smaller one."""
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

    def _words(self, record: Record, column: str) -> str:
        value = record.fields.get(column)
        words = str(value) if type(value) is int else value
        if not isinstance(words, str) or not words.strip():
            raise self._bad(record, f"has no text in {column}; write it or delete the row")
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
                f"has {value!r} as {column}, which is no whole number from 0 to 2^64 - 1; "
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
                f"has {value!r} as {column}, which is no number; "
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
        try:
            return self.formats[self.path.suffix.lower()]
        except KeyError:
            raise SafegenError(
                f"{self.path}: prompts {self.kind} come as {' or '.join(self.formats)}; "
                "convert it, or give another file"
            ) from None

    @functools.cached_property
    def _columns(self) -> Columns:
        names = self._format.columns(self.path)
        texts = self.text_columns if self.column is None else (column_name(self.column),)
        text = self._column(names, texts)
        if text is None:
            raise SafegenError(
                f"{self.path}: has no column {' or '.join(texts)} "
                f"(it has: {', '.join(filter(None, names)) or 'nothing'}); "
                "say which one holds the prompts: column=NAME"
            )
        return Columns(
            text=text,
            seed=self._column(names, SEED_COLUMNS),
            guidance=self._column(names, GUIDANCE_COLUMNS),
            categories=self._column(names, CATEGORY_COLUMNS),
            id=self._column(names, self.id_columns),
        )

    def _column(self, names: list[str], wanted: tuple[str, ...]) -> str | None:
        """The first of the wanted names that the file has."""
        found = next((name for name in wanted if name in names), None)
        if found is not None and names.count(found) > 1:
            raise SafegenError(f"{self.path}: names the column {found} twice; keep one")
        return found


def categories_of(value: Any) -> tuple[str, ...]:
    """Categories from a cell (``hate, violence``) or a list of texts."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        return ()
    return tuple(part.strip().lower() for part in map(str, parts) if part.strip())
