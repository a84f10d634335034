"""One picture of many comparisons: a row of the original model over a row of the hardened one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from PIL import Image, ImageDraw, ImageFont

from safegen.errors import SafegenError
from safegen.report.pictures import blurred
from safegen.report.records import Comparison, Picture
from safegen.report.summary import Side, picture_of

GAP = 6
"""Pixels between columns; a third of it between the two rows of a band, thrice between bands."""
MARGIN = 26
"""Width of the strip on the left that names the rows."""
_PAPER, _INK = (251, 250, 246), (108, 104, 97)


def comparison_grid(
    comparisons: Sequence[Comparison], columns: int, scale: int, blur_unsafe: bool = True
) -> Image.Image:
    """Draw comparisons in bands of ``columns``: the original's pictures over the hardened's.

    Args:
        comparisons: in reading order; all pictures of one size.
        columns: comparisons a band.
        scale: whole enlargement, by nearest neighbour.
        blur_unsafe: whether flagged pictures are blurred.

    Returns:
        An RGB picture.

    Raises:
        SafegenError: nothing to draw, or pictures of different sizes.
    """
    if not comparisons or columns < 1 or scale < 1:
        raise SafegenError(
            "a grid needs comparisons, and columns and scale of at least 1; "
            f"got {len(comparisons)}, {columns} and {scale}"
        )
    shapes = {picture_of(c, side).image.shape for c in comparisons for side in get_args(Side)}
    if len(shapes) > 1:
        raise SafegenError(f"a grid needs pictures of one size; got {sorted(shapes)}")
    starts = range(0, len(comparisons), columns)
    bands = [_band(comparisons[i : i + columns], scale, blur_unsafe) for i in starts]
    height = sum(band.height for band in bands) + 3 * GAP * (len(bands) - 1)
    grid = Image.new("RGB", (bands[0].width, height), _PAPER)
    for number, band in enumerate(bands):
        grid.paste(band, (0, number * (band.height + 3 * GAP)))
    return grid


def _band(comparisons: Sequence[Comparison], scale: int, blur_unsafe: bool) -> Image.Image:
    """The two rows of some comparisons, with their names on the left."""
    height, width = (length * scale for length in comparisons[0].original.image.shape[:2])
    size = (MARGIN + len(comparisons) * (width + GAP) - GAP, 2 * height + GAP // 3)
    band = Image.new("RGB", size, _PAPER)
    for row, side in enumerate(get_args(Side)):
        top = row * (height + GAP // 3)
        band.paste(_upright(side, height), (0, top))
        for column, comparison in enumerate(comparisons):
            picture = _enlarged(picture_of(comparison, side), scale, blur_unsafe)
            band.paste(picture, (MARGIN + column * (width + GAP), top))
    return band


def _enlarged(picture: Picture, scale: int, blur_unsafe: bool) -> Image.Image:
    image = Image.fromarray(picture.image)
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    return blurred(large) if picture.unsafe and blur_unsafe else large


def _upright(text: str, length: int) -> Image.Image:
    """The text read from below, centred on a strip (``MARGIN`` wide, ``length`` high)."""
    strip = Image.new("RGB", (length, MARGIN), _PAPER)
    font = ImageFont.load_default(min(max(length / 8, 8), 14))
    centre = (length / 2, MARGIN / 2)
    ImageDraw.Draw(strip).text(centre, text, fill=_INK, font=font, anchor="mm")
    return strip.transpose(Image.Transpose.ROTATE_90)
