"""Real pictures, which the Fréchet distance compares with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safegen.errors import SafegenError
from safegen.evaluation.worker import encode_png
from safegen.files import file_hash
from safegen.lab.world.world import Mixture, Split, draw_scene

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
BENIGN_WORLD = Mixture(explicit=0.0, implicit=0.0, benign=1.0, near_miss=0.0)
"""As the lab's benign prompts."""


class RealPictures(Protocol):
    """Pictures that can be gone through any number of times, always in the same order."""

    @property
    def identity(self) -> dict[str, Any]:
        """What to record of them."""

    def __iter__(self) -> Iterator[bytes]:
        """Image files, one by one."""


@dataclass(frozen=True)
class LabScenes:
    """Scenes of the lab's world that nothing was trained on.

    Attributes:
        count: how many.
        seed: of the scenes.
        split: which the combinations of objects and places are from.
    """

    count: int = 1000
    seed: int = 4_242
    split: Split = "held-out"

    @property
    def identity(self) -> dict[str, Any]:
        """See ``RealPictures.identity``."""
        return {"source": "lab", "count": self.count, "seed": self.seed, "split": self.split}

    def __iter__(self) -> Iterator[bytes]:
        """See ``RealPictures.__iter__``."""
        for index in range(self.count):
            yield encode_png(draw_scene(BENIGN_WORLD, self.split, self.seed, index).image)


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
    """Those of ``lab``, or of a folder."""
    return LabScenes() if place == "lab" else FolderPictures(Path(place))
