"""Pictures as pages and grids hold them: reduced, embedded, blurred."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageFilter

BLUR_SHARE = 9
"""A blur's standard deviation is this part of a picture's shorter side: nothing finer than a
quarter of the picture is left."""


def reduced(image: np.ndarray, side: int) -> Image.Image:
    """A uint8 picture (H, W, 3), at most ``side`` pixels wide and high."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


def blurred(picture: Image.Image) -> Image.Image:
    """The picture, no longer recognisable; what was sharp is not in it any more."""
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / BLUR_SHARE))


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(picture: Image.Image) -> str:
    """The picture as PNG data URI."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
