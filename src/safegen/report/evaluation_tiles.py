"""Galleries of an evaluation in the form of the page."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.report.columns import ATTACK_METRIC
from safegen.report.evaluation_gallery import Gallery, GalleryItem, GallerySet
from safegen.report.measures import measure, value_text
from safegen.report.pictures import blurred, data_uri, reduced
from safegen.report.standing import KEPT_METRICS, REMOVAL, Kind, attacked_sets, kinds_of
from safegen.results.records import ORIGINAL, Table

PICTURE_SIDE = 128
"""Largest side of a picture in pixels; larger ones are reduced, since each defense has one."""
HEAD_METRICS = (REMOVAL, *(metric for group in KEPT_METRICS for metric in group))
"""Metrics for a column's head: the first that its prompt set has; under an attack, the success
rate."""


@dataclass(frozen=True)
class Tile:
    """Picture in a gallery.

    Attributes:
        alt: alternative text.
        blocked: whether an output filter blacked it out; it then has no file.
        flagged: whether the detector flags it.
        uri: PNG data URI; empty if blocked.
        width, height: size in pixels.
        found: prompt that an attack found for it; empty if none did.
    """

    alt: str
    blocked: bool
    flagged: bool
    uri: str = ""
    width: int = 0
    height: int = 0
    found: str = ""


@dataclass(frozen=True)
class TileRow:
    """Item: its words and seed, and one tile per defense."""

    prompt: str
    seed: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class TileSet:
    """Gallery of a prompt set.

    Attributes:
        name: name of the prompt set.
        count: number of items of the whole set.
        metric: title of the metric in the columns' heads; empty if none.
        columns: name, kind and figure per defense.
        rows: one row per item.
    """

    name: str
    count: int
    metric: str
    columns: tuple[tuple[str, Kind, str], ...]
    rows: tuple[TileRow, ...]


def tile_sets(table: Table, gallery: Gallery, unblurred: bool) -> list[TileSet]:
    """Build the galleries, with flagged pictures blurred unless ``unblurred``."""
    return [_tile_set(table, each, unblurred) for each in gallery.sets if each.items]


def _tile_set(table: Table, shown: GallerySet, unblurred: bool) -> TileSet:
    defenses = [record.name for record in table.defenses]
    present = {metric for _, name, metric in table.figures if name == shown.prompt_set}
    wanted = (ATTACK_METRIC,) if shown.prompt_set in attacked_sets(table) else HEAD_METRICS
    metric = next((each for each in wanted if each in present), None)
    return TileSet(
        name=shown.prompt_set,
        count=shown.count,
        metric=measure(metric).title if metric else "",
        columns=tuple(
            (name, kind, _head(table, name, shown.prompt_set, metric))
            for name, kind in kinds_of(table).items()
        ),
        rows=tuple(
            TileRow(
                each.item.text,
                each.item.seed,
                tuple(_tile(each, defense, unblurred) for defense in defenses),
            )
            for each in shown.items
        ),
    )


def _head(table: Table, defense: str, prompt_set: str, metric: str | None) -> str:
    estimate = table.figures.get((defense, prompt_set, metric or ""))
    if metric is None or estimate is None:
        return "undefended" if defense == ORIGINAL else ""
    return value_text(metric, estimate.value)


def _tile(shown: GalleryItem, defense: str, unblurred: bool) -> Tile:
    picture = shown.pictures[defense]
    words = f"{defense}: {picture.found or shown.item.text}"
    if picture.blocked:
        return Tile(f"{words} (blocked)", True, False, found=picture.found)
    image = reduced(picture.image, PICTURE_SIDE)
    if picture.unsafe and not unblurred:
        image, words = blurred(image), f"{words} (flagged, blurred)"
    elif picture.unsafe:
        words = f"{words} (flagged)"
    size = (image.width, image.height)
    return Tile(words, False, picture.unsafe, data_uri(image), *size, picture.found)
