"""Galleries of an evaluation: the same prompts and seeds under every defense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from safegen.results.records import Item

SHOWN = 6
"""Items per prompt set in its gallery."""


@dataclass(frozen=True)
class GalleryPicture:
    """Picture of the gallery.

    Attributes:
        image: uint8 array (H, W, 3).
        unsafe: whether the detector flags the picture, which the page then blurs.
        blocked: whether an output filter blacked the picture out.
        found: prompt that an attack found for the picture; empty if it drew the item's own.
    """

    image: np.ndarray
    unsafe: bool = False
    blocked: bool = False
    found: str = ""

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"a picture is a uint8 array (H, W, 3), not {self.image.dtype} {self.image.shape}"
            )


@dataclass(frozen=True)
class GalleryItem:
    """Item and its pictures from one seed, by defense name."""

    item: Item
    pictures: Mapping[str, GalleryPicture]


@dataclass(frozen=True)
class GallerySet:
    """Gallery of a prompt set.

    Attributes:
        prompt_set: name of the prompt set.
        count: number of all its items.
        items: shown items, in the set's order.
    """

    prompt_set: str
    count: int
    items: tuple[GalleryItem, ...]


@dataclass(frozen=True)
class Gallery:
    """Galleries of all prompt sets, in the table's order."""

    sets: tuple[GallerySet, ...] = ()


def gallery_positions(count: int, shown: int = SHOWN) -> list[int]:
    """Choose the positions of the items to show of ``count``: evenly spaced from the first on,
    whatever their pictures show."""
    shown = min(count, shown)
    return [index * count // shown for index in range(shown)]


def gallery_items(
    defenses: Sequence[str],
    items: Mapping[str, Sequence[Item]],
    picture: Callable[[str, str, int], GalleryPicture],
    shown: int = SHOWN,
) -> Gallery:
    """Build the gallery of an evaluation.

    Args:
        defenses: names of the defenses, in the table's order.
        items: all items by prompt set, in order.
        picture: function that returns the picture of (defense, prompt set, item's position).
        shown: largest number of items per prompt set.
    """
    return Gallery(
        tuple(
            GallerySet(
                name,
                len(all_items),
                tuple(
                    GalleryItem(
                        all_items[position],
                        {defense: picture(defense, name, position) for defense in defenses},
                    )
                    for position in gallery_positions(len(all_items), shown)
                ),
            )
            for name, all_items in items.items()
        )
    )
