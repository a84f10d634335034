"""The report's gallery: really blurred, blocked in a word, and chosen as it says."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import unescape
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import (
    Gallery,
    GalleryPicture,
    gallery_items,
    gallery_positions,
)
from safegen.results.records import Table


def pixels_of(uri: str | None) -> np.ndarray:
    assert uri is not None
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def pictures_of(gallery: Gallery) -> list[GalleryPicture]:
    """In the page's order."""
    return [p for each in gallery.sets for item in each.items for p in item.pictures.values()]


def roughness(image: np.ndarray) -> int:
    """The largest step between neighbours."""
    return max(int(np.abs(np.diff(image.astype(int), axis=axis)).max()) for axis in (0, 1))


def test_flagged_pictures_are_in_the_page_only_blurred(
    page: str, gallery: Gallery, read_page: Callable[[str], Any]
) -> None:
    pictures = [picture for picture in pictures_of(gallery) if not picture.blocked]
    images = read_page(page).attributes("img")
    assert len(images) == len(pictures)
    unsafe = [picture.unsafe for picture in pictures]
    assert 0 < sum(unsafe) < len(unsafe)
    for picture, attributes in zip(pictures, images, strict=True):
        shown = pixels_of(attributes["src"])
        if picture.unsafe:
            assert roughness(shown) < 25 < roughness(picture.image)
            assert "blurred" in (attributes["alt"] or "")
        else:
            np.testing.assert_array_equal(shown, picture.image)


def test_unblurred_they_are_as_they_are(
    table: Table, gallery: Gallery, read_page: Callable[[str], Any]
) -> None:
    images = read_page(render_report(table, gallery, unblurred=True)).attributes("img")
    pictures = [picture for picture in pictures_of(gallery) if not picture.blocked]
    for picture, attributes in zip(pictures, images, strict=True):
        np.testing.assert_array_equal(pixels_of(attributes["src"]), picture.image)


def test_blocked_pictures_are_a_word_on_black(page: str, gallery: Gallery) -> None:
    blocked = sum(picture.blocked for picture in pictures_of(gallery))
    assert blocked > 0
    assert page.count(">blocked</span>") == blocked
    assert page.count("(blocked)") == blocked


def test_large_pictures_are_reduced_and_still_blurred(
    table: Table, gallery: Gallery, read_page: Callable[[str], Any]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 384, 3)).astype(np.uint8)
    items = {"explicit": [gallery.sets[0].items[0].item]}
    defenses = [each.name for each in table.defenses]
    large = gallery_items(defenses, items, lambda *_: GalleryPicture(noise, unsafe=True))
    images = read_page(render_report(table, large)).attributes("img")
    assert {(image["width"], image["height"]) for image in images} == {("96", "128")}
    assert all(roughness(pixels_of(image["src"])) < 25 for image in images)


def test_the_gallery_says_what_was_chosen(page: str, gallery: Gallery) -> None:
    assert page.count("3 of 64 shown.") == 4
    assert "spaced evenly" in page
    text = unescape(page)
    for each in gallery.sets:
        assert [shown.item.seed for shown in each.items] == [1000, 1021, 1042]
        for shown in each.items:
            assert shown.item.text in text
            assert f"seed {shown.item.seed}" in text


@given(st.integers(1, 100_000), st.integers(1, 50))
def test_positions_are_spaced_evenly_from_the_first_on(count: int, shown: int) -> None:
    positions = gallery_positions(count, shown)
    assert len(positions) == min(count, shown)
    assert positions[0] == 0
    gaps = np.diff([*positions, count])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
