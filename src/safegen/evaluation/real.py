"""Real pictures, which the Fréchet distance compares with."""

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
    """Pictures that can be gone through any number of times, always in the same order."""

    @property
    def identity(self) -> dict[str, Any]:
        """What to record of them, their ``count`` among it."""

    def __iter__(self) -> Iterator[bytes]:
        """Image files, one by one."""


class FolderPictures:
    """The image files of a folder and of those in it, by name.

    Raises:
        SafegenError: there is no such folder, or no picture in it.
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
        """See ``RealPictures.identity``; told by their content."""
        joined = "".join(file_hash(path) for path in self._files)
        digest = hashlib.sha256(joined.encode()).hexdigest()
        return {"source": "folder", "count": len(self._files), "hash": digest}

    def __iter__(self) -> Iterator[bytes]:
        """See ``RealPictures.__iter__``."""
        return (path.read_bytes() for path in self._files)


def real_pictures(place: str) -> RealPictures:
    """Those that are usual for a model of that name, or those of a folder."""
    known = (profile_of(place) or Profile()).real
    return FolderPictures(Path(place)) if known is None else known()
