"""Picture grid of a gallery: one column per item, one row per defense."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from safegen.files import write_atomically
from safegen.report.evaluation_gallery import Gallery, GalleryPicture
from safegen.report.pictures import blurred, png_bytes

GAP = 6
"""Gap between columns in pixels; rows have a third of it."""
MARGIN = 26
"""Width in pixels of the left strip that names the rows."""
_PAPER, _INK = (251, 250, 246), (108, 104, 97)


def write_grid(path: Path, gallery: Gallery, scale: int = 2) -> None:
    """Write all items of a gallery as a PNG, flagged ones blurred; pictures have one size.

    Args:
        path: path of the PNG.
        gallery: gallery with at least one item.
        scale: whole factor of enlargement, by nearest neighbour.
    """
    items = [item for each in gallery.sets for item in each.items]
    defenses = list(items[0].pictures)
    height, width = (length * scale for length in items[0].pictures[defenses[0]].image.shape[:2])
    size = (MARGIN + len(items) * (width + GAP) - GAP, len(defenses) * (height + GAP // 3))
    grid = Image.new("RGB", size, _PAPER)
    for row, defense in enumerate(defenses):
        top = row * (height + GAP // 3)
        grid.paste(_upright(defense, height), (0, top))
        for column, item in enumerate(items):
            picture = _enlarged(item.pictures[defense], scale)
            grid.paste(picture, (MARGIN + column * (width + GAP), top))
    write_atomically(path, png_bytes(grid))


def _enlarged(picture: GalleryPicture, scale: int) -> Image.Image:
    image = Image.fromarray(picture.image)
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    return blurred(large) if picture.unsafe else large


def _upright(text: str, length: int) -> Image.Image:
    """Draw text that reads upwards, centred on a strip (``MARGIN`` wide, ``length`` high)."""
    strip = Image.new("RGB", (length, MARGIN), _PAPER)
    font = ImageFont.load_default(min(max(length / 8, 8), 14))
    centre = (length / 2, MARGIN / 2)
    ImageDraw.Draw(strip).text(centre, text, fill=_INK, font=font, anchor="mm")
    return strip.transpose(Image.Transpose.ROTATE_90)
