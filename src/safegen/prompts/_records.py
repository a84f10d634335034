"""Records of the prompt file formats, one by one; errors name file and line."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import SafegenError


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        number: number from 1; header and blank lines do not count.
        where: name in messages, without the file's path.
        line: first line, if the format has lines.
        fields: values by normalised column name.
    """

    number: int
    where: str
    line: int | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """File format: functions that read its column names and its records."""

    columns: Callable[[Path], list[str]]
    records: Callable[[Path], Iterator[Record]]


def column_name(text: str) -> str:
    """Normalise a column's name: ``Sensitive prompt`` becomes ``sensitive_prompt``."""
    return "_".join(text.lower().split())


def _csv_columns(path: Path) -> list[str]:
    _, header = next(_rows(path), (1, []))
    return [column_name(name) for name in header]


def _numbered_columns(path: Path) -> list[str]:
    """Number the columns of a CSV without a header: 1, 2 and so on."""
    return [str(number) for number, _ in enumerate(_csv_columns(path), start=1)]


def _csv_records(path: Path) -> Iterator[Record]:
    rows = _rows(path)
    next(rows, None)
    return _named(path, rows, _csv_columns(path), "header")


def _headless_records(path: Path) -> Iterator[Record]:
    return _named(path, _rows(path), _numbered_columns(path), "first row")


def _named(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: list[str], first: str
) -> Iterator[Record]:
    for number, (line, cells) in enumerate(rows, start=1):
        if len(cells) != len(columns):
            raise SafegenError(
                f"{path} line {line}: has {len(cells)} cells where the {first} has {len(columns)}; "
                "put a prompt that contains a comma in double quotes"
            )
        yield Record(number, f"line {line}", line, dict(zip(columns, cells, strict=True)))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line number and its cells; blank lines are skipped."""
    line = 1
    reader = csv.reader(_lines(path), strict=True)
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise SafegenError(
            f"{path} line {line}: cannot be read as CSV ({error}); put a prompt with commas or "
            "quotes in double quotes, double those inside it, and close them"
        ) from error


def _jsonl_columns(path: Path) -> list[str]:
    """Collect the fields of all records, since some may have extra ones."""
    return list(dict.fromkeys(name for record in _jsonl_records(path) for name in record.fields))


def _jsonl_records(path: Path) -> Iterator[Record]:
    for number, (line, text) in enumerate(_filled_lines(path), start=1):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SafegenError(
                f"{path} line {line}: is not valid JSON ({error}); write one object a line"
            ) from error
        if not isinstance(fields, dict):
            raise SafegenError(
                f'{path} line {line}: is no JSON object; write one such as {{"prompt": "a cat"}}'
            )
        named = {column_name(key): value for key, value in fields.items()}
        yield Record(number, f"line {line}", line, named)


def _text_records(path: Path) -> Iterator[Record]:
    for number, (line, text) in enumerate(_filled_lines(path), start=1):
        yield Record(number, f"line {line}", line, {"prompt": text})


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(_lines(path), start=1):
        for part in filter(None, map(str.strip, text.split("\r"))):  # old line ends
            yield line, part


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends; a byte-order mark is skipped."""
    try:
        with path.open("rb") as file:
            for line, data in enumerate(file, start=1):
                yield _decoded(path, line, data)
    except OSError as error:
        raise SafegenError(
            f"{path}: cannot be read ({error.strerror or error}); check the file"
        ) from error


def _decoded(path: Path, line: int, data: bytes) -> str:
    try:
        text = (data.removeprefix(codecs.BOM_UTF8) if line == 1 else data).decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as in UTF-16, whose ASCII is valid UTF-8 with NUL bytes
        raise SafegenError(f"{path} line {line}: is not UTF-8 text; save the file as UTF-8")
    return text


CSV = Format(_csv_columns, _csv_records)
HEADLESS_CSV = Format(_numbered_columns, _headless_records)
JSONL = Format(_jsonl_columns, _jsonl_records)
TEXT = Format(lambda _: ["prompt"], _text_records)
