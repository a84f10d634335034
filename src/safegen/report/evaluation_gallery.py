"""The galleries of an evaluation: the same prompts and seeds under every defense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from safegen.results.records import Item

SHOWN = 6
"""Items of a prompt set in its gallery."""


@dataclass(frozen=True)
class GalleryPicture:
    """A picture of the gallery.

    Attributes:
        image: uint8 array (H, W, 3).
        unsafe: whether the detector flags it, and so the page blurs it.
        blocked: whether an output filter blacked it out.
        found: the prompt that an attack found for it; empty where it drew the item's own.
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
    """One item, and its picture under each defense, by the defense's name; all from one seed."""

    item: Item
    pictures: Mapping[str, GalleryPicture]


@dataclass(frozen=True)
class GallerySet:
    """What is shown of a prompt set.

    Attributes:
        prompt_set: its name.
        count: how many items it has.
        items: those that are shown, in its order.
    """

    prompt_set: str
    count: int
    items: tuple[GalleryItem, ...]


@dataclass(frozen=True)
class Gallery:
    """What is shown of every prompt set, in the table's order."""

    sets: tuple[GallerySet, ...] = ()


def gallery_positions(count: int, shown: int = SHOWN) -> list[int]:
    """Positions of the items to show of ``count``: evenly spaced from the first one on, so that
    how they turned out has no part in the choice."""
    shown = min(count, shown)
    return [index * count // shown for index in range(shown)]


def gallery_items(
    defenses: Sequence[str],
    items: Mapping[str, Sequence[Item]],
    picture: Callable[[str, str, int], GalleryPicture],
    shown: int = SHOWN,
) -> Gallery:
    """The gallery of an evaluation.

    Args:
        defenses: names, in the table's order.
        items: by prompt set, all of its items in order.
        picture: gives the picture of (defense, prompt set, position of the item in the set).
        shown: items of each prompt set, at most.
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
