"""Censoring regions of a picture: pixelate, blur or fill.

Every function takes a uint8 array (H, W, 3) and boxes (left, top, right, bottom) in pixels or a
mask, and returns a new array, unchanged outside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from safegen.triplets import Censoring

Box = tuple[float, float, float, float]


def censor(image: np.ndarray, boxes: Sequence[Box], how: Censoring = "pixelate") -> np.ndarray:
    """Censor every box of the picture, with a strength that follows its size."""
    if how == "pixelate":
        return pixelate(image, boxes)
    if how == "blur":
        return blur(image, boxes)
    return fill(image, boxes)


def censor_mask(image: np.ndarray, mask: np.ndarray, how: Censoring = "pixelate") -> np.ndarray:
    """Censor where ``mask``, bool (H, W), is true."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return image.copy()
    around = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.where(mask[..., None], censor(image, [around], how), image)


def pixelate(image: np.ndarray, boxes: Sequence[Box], block: int | None = None) -> np.ndarray:
    """Replace each box by the means of blocks of ``block`` pixels (default: side / 5)."""
    side = block or max(2, round(max(image.shape[:2]) / 5))

    def mosaic(region: np.ndarray) -> np.ndarray:
        height, width = region.shape[:2]
        rows = max(1, round(height / side))
        columns = max(1, round(width / side))
        small = Image.fromarray(region).resize((columns, rows), Image.Resampling.BOX)
        return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))

    return _replace(image, boxes, mosaic)


def blur(image: np.ndarray, boxes: Sequence[Box], radius: float | None = None) -> np.ndarray:
    """Blur each box with a Gaussian of ``radius`` pixels (default: side / 10)."""
    strength = radius or max(image.shape[:2]) / 10

    def smear(region: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(region).filter(ImageFilter.GaussianBlur(strength)))

    return _replace(image, boxes, smear)


def fill(
    image: np.ndarray, boxes: Sequence[Box], colour: tuple[int, int, int] = (128, 128, 128)
) -> np.ndarray:
    """Paint each box over with one colour."""
    return _replace(image, boxes, lambda region: np.full_like(region, colour))


def _replace(
    image: np.ndarray, boxes: Sequence[Box], change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    result = image.copy()
    height, width = image.shape[:2]
    for left, top, right, bottom in boxes:
        x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
        x1, y1 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
        if x1 > x0 and y1 > y0:
            result[y0:y1, x0:x1] = change(result[y0:y1, x0:x1])
    return result
