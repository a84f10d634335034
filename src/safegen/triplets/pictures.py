"""Reading picture files as arrays."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from safegen.errors import SafegenError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""Pillow's errors on damaged, truncated or absurdly large files, and on files without images."""


def read_picture(path: Path | BinaryIO, where: str) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3), turned by its EXIF, transparency on white.

    Args:
        path: the file, or its open stream.
        where: its name in error messages.

    Raises:
        SafegenError: the file cannot be decoded completely.
    """
    image = _load(path, where)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path, where: str) -> np.ndarray:
    """Read a mask as bool (H, W): true where the picture is nearer to white than to black.

    Raises:
        SafegenError: the file cannot be decoded completely, or contains no white.
    """
    mask = np.asarray(_load(path, where).convert("L")) >= 128
    if not mask.any():
        raise SafegenError(f"{where}: the mask is black; paint white what is to be censored")
    return mask


def image_files(folder: Path) -> list[Path]:
    """List the image files directly in a folder, sorted by name, hidden ones excluded.

    Raises:
        SafegenError: it is no folder, or holds no images.
    """
    if not folder.is_dir():
        raise SafegenError(f"{folder}: no such folder; check the path")
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and f.is_file()]
    visible = [file for file in files if not file.name.startswith(".")]
    if not visible:
        kinds = ", ".join(sorted(SUFFIXES))
        raise SafegenError(f"{folder}: holds no images; put some there ({kinds})")
    return visible


def _load(path: Path | BinaryIO, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            file = Image.open(path)
        with file:
            # A phone's JPEG may contain a second, small picture.
            frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            file.load()
            image = ImageOps.exif_transpose(file)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise SafegenError(
            f"{where}: cannot be read as an image ({reason}); replace it or take it out"
        ) from error
    if frames > 1:
        raise SafegenError(f"{where}: holds {frames} pictures; save the one that is meant")
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to white
        raise SafegenError(
            f"{where}: has more than 8 bits a channel; save it with 8 ({image.mode} given)"
        )
    return image
