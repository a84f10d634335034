"""Lists of picture files that make triplets: from two folders, or from a CSV.

Everything that needs no decoding is checked here: columns, paths, rows.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import SafegenError
from safegen.files import check_regular
from safegen.triplets.pictures import image_files

COLUMNS = ("unsafe", "censored", "benign", "caption")
ALIASES = {
    "nude_image_path": "unsafe",
    "mos_image_path": "censored",
    "norm_image_path": "benign",
}
"""Column names of the SafeGen paper's release."""


@dataclass(frozen=True)
class PictureFile:
    """One file, and its name in messages: its path, or the CSV row that names it."""

    path: Path
    where: str


@dataclass(frozen=True)
class UnsafeFile:
    """An unsafe picture, with any censored twin or mask."""

    picture: PictureFile
    censored: PictureFile | None = None
    mask: PictureFile | None = None


@dataclass(frozen=True)
class BenignFile:
    """A benign picture, with any caption."""

    picture: PictureFile
    caption: str | None = None


@dataclass(frozen=True)
class TripletFiles:
    """The files of a set of triplets.

    Attributes:
        unsafe: unsafe pictures in order.
        benign: benign pictures in order.
        origin: provenance as JSON values.

    Raises:
        SafegenError: a picture is both unsafe and benign, or its own censored twin.
    """

    unsafe: tuple[UnsafeFile, ...]
    benign: tuple[BenignFile, ...]
    origin: dict[str, Any]

    def __post_init__(self) -> None:
        unsafe = {item.picture.path.resolve(): item.picture.where for item in self.unsafe}
        for file in self.benign:
            path = file.picture.path.resolve()
            if path in unsafe:
                raise SafegenError(
                    f"{file.picture.where}: is named as unsafe too ({unsafe[path]}); "
                    "a picture must be one or the other"
                )
        for item in self.unsafe:
            if item.censored and item.censored.path.resolve() == item.picture.path.resolve():
                raise SafegenError(
                    f"{item.censored.where}: is the unsafe picture itself; "
                    "name its censored copy, or leave the cell empty"
                )

    @property
    def undecided(self) -> int:
        """Number of unsafe pictures with neither a censored twin nor a mask."""
        return sum(item.censored is None and item.mask is None for item in self.unsafe)

    def with_masks(self, folder: Path) -> TripletFiles:
        """Add a mask to each undecided picture: the file of the same stem.

        Raises:
            SafegenError: a mask is missing, or stems are not unique.
        """
        masks = _by_stem(image_files(folder))
        pictures = _by_stem(sorted({item.picture.path for item in self.unsafe}))
        unsafe = []
        for item in self.unsafe:
            stem = item.picture.path.stem
            if item.censored is None:
                if stem not in masks:
                    raise SafegenError(
                        f"{item.picture.where}: has no mask in {folder}; "
                        f"add {stem}.png, white where it is to be censored"
                    )
                _check_single(pictures[stem])
                _check_single(masks[stem])
                mask = PictureFile(masks[stem][0], str(masks[stem][0]))
                item = dataclasses.replace(item, mask=mask)
            unsafe.append(item)
        return dataclasses.replace(
            self, unsafe=tuple(unsafe), origin={**self.origin, "masks": folder.name}
        )


def list_folders(unsafe: Path, benign: Path) -> TripletFiles:
    """List the images of two folders, each sorted by name.

    Raises:
        SafegenError: a folder is missing or holds no images, or both are the same.
    """
    origin = {"kind": "folders", "unsafe": unsafe.name, "benign": benign.name}
    return TripletFiles(
        tuple(UnsafeFile(PictureFile(file, str(file))) for file in image_files(unsafe)),
        tuple(BenignFile(PictureFile(file, str(file))) for file in image_files(benign)),
        origin,
    )


def list_csv(file: Path) -> TripletFiles:
    """List the pictures of a CSV: columns unsafe and benign, optionally censored and caption.

    Paths are relative to the CSV's folder and must stay inside it, symbolic links resolved.
    ``caption`` describes the benign picture, in every row or in none; ``censored`` may be empty.
    Rows are numbered as in a spreadsheet.

    Raises:
        SafegenError: the file, a column, a cell or a picture is missing, or a path leads outside.
    """
    unsafe, benign = [], []
    bare: dict[bool, int] = {}
    for number, cells in _rows(file):
        bare.setdefault(not cells.get("caption"), number)
        if len(bare) == 2:
            raise SafegenError(
                f"{file} row {bare[True]}: column caption is empty, and in row {bare[False]} it is "
                "not; describe each benign picture, or none"
            )
        picture = _locate(file, number, "unsafe", cells["unsafe"])
        censored = None
        if cells.get("censored"):
            censored = _locate(file, number, "censored", cells["censored"])
        unsafe.append(UnsafeFile(picture, censored))
        harmless = _locate(file, number, "benign", cells["benign"])
        benign.append(BenignFile(harmless, cells.get("caption") or None))
    if not unsafe:
        raise SafegenError(f"{file}: has no rows below its header; add one a triplet")
    return TripletFiles(tuple(unsafe), tuple(benign), {"kind": "csv", "file": file.name})


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield row numbers, and cells by column; blank rows are skipped."""
    check_regular(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            columns = _columns(file, next(reader, []))
            for number, cells in enumerate(reader, start=2):
                if any(cell.strip() for cell in cells):
                    yield number, _named(file, number, columns, cells)
    except UnicodeDecodeError as error:
        raise SafegenError(f"{file}: is not UTF-8 text; save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise SafegenError(
            f"{file}: cannot be read as a CSV ({error}); put cells that have commas or quotes in "
            "double quotes, and close them"
        ) from error


def _columns(file: Path, header: list[str]) -> list[str]:
    """Translate the paper's column names in a header; each of ours at most once."""
    columns = [ALIASES.get(name.strip().lower(), name.strip().lower()) for name in header]
    for needed in ("unsafe", "benign"):
        if needed not in columns:
            raise SafegenError(
                f"{file}: has no column {needed!r} among the {len(header)} of its first row; "
                "it needs unsafe and benign, and may have censored, separated by commas"
            )
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise SafegenError(f"{file}: row 1 names the column {column} twice; keep one")
    return columns


def _named(file: Path, number: int, columns: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise SafegenError(
            f"{file} row {number}: has {len(cells)} cells where the header has {len(columns)}; "
            "put a path that contains a comma in double quotes"
        )
    named = zip(columns, cells, strict=True)
    return {name: cell.strip() for name, cell in named if name in COLUMNS}


def _locate(file: Path, number: int, column: str, text: str) -> PictureFile:
    """Locate the file in a cell."""
    if not text:
        raise SafegenError(
            f"{file} row {number}: column {column} is empty; name a picture or delete the row"
        )
    where = f"{file} row {number}, {column} {text!r:.80}"
    try:
        folder = file.parent.resolve()
        path = (folder / text).resolve()
        exists = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise SafegenError(f"{where}: is no usable path ({error})") from error
    if not path.is_relative_to(folder):
        raise SafegenError(
            f"{where}: lies outside the CSV's folder {folder}; "
            "move the picture into it and give a relative path"
        )
    if not exists:
        raise SafegenError(f"{where}: no such file; correct the path or delete the row")
    return PictureFile(path, where)


def _by_stem(paths: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def _check_single(paths: list[Path]) -> None:
    if len(paths) > 1:
        raise SafegenError(
            f"{paths[0]} and {paths[1]}: have the same name, so picture and mask "
            "cannot be matched; rename one"
        )
