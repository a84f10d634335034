"""Real pictures, the reference of the Fréchet distance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.profiles import Profile, profile_of

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


class RealPictures(Protocol):
    """Pictures that can be read any number of times, always in the same order."""

    @property
    def identity(self) -> dict[str, Any]:
        """Return what to record of the pictures, with their ``count``."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes of each image file."""


class FolderPictures:
    """Image files of a folder and its subfolders, by name.

    Raises:
        SafegenError: the folder is missing, or holds no picture.
    """

    def __init__(self, folder: Path) -> None:
        found = folder.rglob("*") if folder.is_dir() else ()
        self._files = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        if not self._files:
            raise SafegenError(
                f"{folder}: no folder with pictures ({', '.join(sorted(SUFFIXES))}); give the one "
                "with the real pictures to compare with"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """See ``RealPictures.identity``; hashes the content."""
        joined = "".join(file_hash(path) for path in self._files)
        digest = hashlib.sha256(joined.encode()).hexdigest()
        return {"source": "folder", "count": len(self._files), "hash": digest}

    def __iter__(self) -> Iterator[bytes]:
        """See ``RealPictures.__iter__``."""
        return (path.read_bytes() for path in self._files)


def real_pictures(place: str) -> RealPictures:
    """Return the real pictures of a model's profile, by its name, or those of a folder."""
    known = (profile_of(place) or Profile()).real
    return FolderPictures(Path(place)) if known is None else known()
