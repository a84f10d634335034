"""Pictures for pages and grids: reduced, embedded, blurred."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageFilter

BLUR_SHARE = 9
"""Standard deviation of the blur as a share of the picture's shorter side; detail finer than a
quarter of the picture is lost."""


def reduced(image: np.ndarray, side: int) -> Image.Image:
    """Reduce a uint8 picture (H, W, 3) to at most ``side`` pixels in width and height."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


def blurred(picture: Image.Image) -> Image.Image:
    """Blur a picture beyond recognition; the result holds no sharp detail."""
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / BLUR_SHARE))


def png_bytes(picture: Image.Image) -> bytes:
    """Encode the picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(picture: Image.Image) -> str:
    """Encode the picture as a PNG data URI."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
