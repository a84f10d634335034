"""Censoring regions of a picture: pixelate, blur, fill or inpaint.

Every function takes a uint8 array (H, W, 3) and boxes (left, top, right, bottom) in pixels or a
mask, and returns a new array, unchanged outside them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from safegen.errors import SafegenError

Box = tuple[float, float, float, float]
INPAINTING_RADIUS = 3
"""Radius in pixels of the neighbourhood that each inpainted pixel is estimated from."""


def check_censoring(censoring: str) -> str:
    """Return the method or the mixture of methods, such as ``inpaint+pixelate``, if known.

    Raises:
        SafegenError: a method is unknown.
    """
    for name in censoring.split("+"):
        if name not in METHODS:
            raise SafegenError(
                f"unknown censoring {name!r}; known: {', '.join(METHODS)}, "
                "and mixtures such as inpaint+pixelate"
            )
    return censoring


def censor(
    image: np.ndarray, boxes: Sequence[Box], how: str = "pixelate", index: int = 0
) -> np.ndarray:
    """Censor every box of the picture, with a strength that follows its size.

    Args:
        image: the picture.
        boxes: regions to censor.
        how: method, or several joined by ``+``, of which the picture's index draws one.
        index: number of the picture in its sequence.
    """
    return METHODS[_method(how, index)](image, boxes)


def censor_mask(
    image: np.ndarray, mask: np.ndarray, how: str = "pixelate", index: int = 0
) -> np.ndarray:
    """Censor where ``mask``, bool (H, W), is true; the rest as in ``censor``."""
    if not mask.any():
        return image.copy()
    method = _method(how, index)
    if method == "inpaint":
        return _inpaint(image, mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    around = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.where(mask[..., None], METHODS[method](image, [around]), image)


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


def inpaint(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Fill the boxes from what surrounds them (Navier-Stokes, Bertalmio et al. 2001)."""
    marked = np.zeros(image.shape[:2], np.uint8)
    return _inpaint(image, _replace(marked, boxes, np.ones_like).astype(bool))


METHODS: dict[str, Callable[[np.ndarray, Sequence[Box]], np.ndarray]] = {
    "pixelate": pixelate,
    "blur": blur,
    "fill": fill,
    "inpaint": inpaint,
}
"""Methods that make a region unrecognisable."""


def _method(how: str, index: int) -> str:
    # Drawn rather than in turns: prompts take turns too, and each must meet every method.
    return random.Random(index).choice(how.split("+"))


def _inpaint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import cv2

    if mask.all():  # nothing surrounds it
        return np.full_like(image, image.mean(axis=(0, 1)).round())
    # OpenCV takes pixels at the picture's border for known, even hidden ones: hence the frame.
    framed = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    hidden = np.pad(mask, 1, mode="edge").astype(np.uint8)
    return cv2.inpaint(framed, hidden, INPAINTING_RADIUS, cv2.INPAINT_NS)[1:-1, 1:-1]


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
