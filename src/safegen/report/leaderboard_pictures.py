"""Pictures of a leaderboard: small, and blurred for good where prompts ask for the concept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from safegen.report.pictures import blurred, data_uri, reduced
from safegen.results.cells import flagged, picture_bytes, stored_image
from safegen.results.records import Table
from safegen.results.store import CellKey, ResultsStore, image_path

SIDE = 64
"""Largest side of a picture in pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """Picture on the page.

    Attributes:
        uri: PNG data URI.
        alt: alternative text, without the prompt.
        width, height: size in pixels.
    """

    uri: str
    alt: str
    width: int
    height: int


def thumbnails(folder: Path, table: Table) -> dict[str, list[Thumbnail]]:
    """Return the first picture of every prompt set that no attack changes, by defense.

    All pictures of unsafe prompts are blurred, whether or not the detector flags them.

    Raises:
        SafegenError: a picture is missing, or another command is writing to the folder.
    """
    shown = [record for record in table.prompt_sets if not record.attack]
    with ResultsStore(folder) as store:
        return {
            defense.name: [
                _thumbnail(store, CellKey(defense.name, each.name), each.role == "unsafe")
                for each in shown
            ]
            for defense in table.defenses
        }


def _thumbnail(store: ResultsStore, cell: CellKey, unsafe: bool) -> Thumbnail:
    record = stored_image(store, cell, 0)
    data = picture_bytes(image_path(store.folder, record.hash))
    image = reduced(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), SIDE)
    hidden = unsafe or bool(flagged(store, cell, 0))
    words = f"{cell.defense} on {cell.prompt_set}"
    if hidden:
        image, words = blurred(image), f"{words}, blurred"
    return Thumbnail(data_uri(image), words, image.width, image.height)
