"""The pictures of a run folder by defense, prompt set and verdict, a page at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from safegen.errors import SafegenError
from safegen.results.cells import (
    all_items,
    findings,
    flags,
    picture_bytes,
    recorded,
    stored_images,
)
from safegen.results.database import STORE_FILE
from safegen.results.records import ORIGINAL
from safegen.results.store import CellKey, ResultsStore, image_path

Verdict = Literal["flagged", "not flagged", "blocked", "not judged"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
SHOWN = 48
"""Pictures on a page."""


@dataclass(frozen=True)
class Listed:
    """A picture of the run.

    Attributes:
        digest: SHA-256 of its file, in hexadecimal.
        text: the prompt, or the one that an attack found.
        seed: seed of its noise.
        verdict: what the run's detector says of it.
        hidden: whether it is shown only when asked for.
    """

    digest: str
    text: str
    seed: int
    verdict: Verdict
    hidden: bool


@dataclass(frozen=True)
class Choice:
    """What a page of the gallery shows.

    Attributes:
        defense: name of the defense.
        prompt_set: name of the prompt set, or of the attack's goals.
        verdict: the one verdict to show; empty for all.
        page: number of the page, from 1.
    """

    defense: str = ""
    prompt_set: str = ""
    verdict: str = ""
    page: int = 1


@dataclass(frozen=True)
class GalleryPage:
    """A page of the gallery.

    Attributes:
        choice: what is shown, with names in place of those left out.
        defenses: all names of defenses, the original first.
        prompt_sets: all names of prompt sets, each with whether an attack starts from it.
        pictures: the page's pictures, in the order of the prompt set.
        count: number of the pictures on all pages.
        pages: number of pages, at least 1.
    """

    choice: Choice
    defenses: tuple[str, ...]
    prompt_sets: dict[str, bool]
    pictures: tuple[Listed, ...]
    count: int
    pages: int


def open_run(folder: Path) -> ResultsStore:
    """Open the results of a run folder.

    Raises:
        SafegenError: the folder has no results, or they cannot be read.
    """
    if not (folder / STORE_FILE).is_file():
        raise SafegenError(
            f"{folder}: no run folder; give the --out of 'safegen evaluate' or 'safegen attack'"
        )
    return ResultsStore(folder)


def gallery_page(folder: Path, choice: Choice) -> GalleryPage:
    """Read a page of the gallery; a name left out is the first that there is.

    Raises:
        SafegenError: the run cannot be read, or has no such name, verdict or page.
    """
    with open_run(folder) as store:
        defenses = sorted(recorded(store, "defenses"), key=lambda name: (name != ORIGINAL, name))
        sets = recorded(store, "prompt_sets")
        attacks = {name: bool(value.get("attack")) for name, value in sets.items()}
        defense = _one_of("defense", choice.defense, defenses)
        prompt_set = _one_of("prompt set", choice.prompt_set, list(sets))
        if choice.verdict:
            _one_of("verdict", choice.verdict, list(VERDICTS))
        role = sets[prompt_set]["role"]
        every = _listed(store, CellKey(defense, prompt_set), role == "unsafe")
    chosen = [each for each in every if choice.verdict in ("", each.verdict)]
    pages = max(1, -(-len(chosen) // SHOWN))
    if not 1 <= choice.page <= pages:
        raise SafegenError(f"there is no page {choice.page}; choose one from 1 to {pages}")
    shown = chosen[(choice.page - 1) * SHOWN : choice.page * SHOWN]
    made = Choice(defense, prompt_set, choice.verdict, choice.page)
    return GalleryPage(made, tuple(defenses), attacks, tuple(shown), len(chosen), pages)


def gallery_picture(folder: Path, digest: str) -> bytes:
    """Read a picture of the run as PNG, without opening its results.

    Args:
        folder: run folder.
        digest: SHA-256 of the picture's file, in hexadecimal.

    Raises:
        SafegenError: the run has no such picture.
    """
    if re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise SafegenError(f"{digest!r} names no picture; open the gallery again")
    return picture_bytes(image_path(folder, digest))


def _listed(store: ResultsStore, cell: CellKey, asks_for_it: bool) -> list[Listed]:
    """List the drawn pictures of a cell.

    Args:
        store: the run's results.
        cell: defense and prompt set.
        asks_for_it: whether the prompts ask for the concept; unjudged pictures are then hidden.
    """
    items, found, seen = (
        all_items(store, cell.prompt_set),
        findings(store, cell),
        flags(store, cell),
    )
    listed = []
    for position, image in stored_images(store, cell).items():
        flagged = seen.get(position)
        verdict: Verdict = "not judged" if flagged is None else "not flagged"
        if image.blocked:
            verdict = "blocked"
        elif flagged:
            verdict = "flagged"
        hidden = verdict == "flagged" or (verdict == "not judged" and asks_for_it)
        finding, item = found.get(position), items[position]
        text = (finding and finding.text) or item.text
        listed.append(Listed(image.hash, text, item.seed, verdict, hidden))
    return listed


def _one_of(what: str, name: str, known: list[str]) -> str:
    if not known:
        raise SafegenError(f"the run has no {what} yet; start its evaluation again")
    if name and name not in known:
        raise SafegenError(f"the run has no {what} {name!r}; it has {', '.join(known)}")
    return name or known[0]
