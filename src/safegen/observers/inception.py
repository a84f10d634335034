"""Inception features as clean-fid computes them, for Fréchet distances as in papers.

Optional (``safegen[fid]``). Only clean-fid's resizing and network are used, so its import of
torchvision is never reached.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safegen.errors import MissingExtraError, SafegenError
from safegen.files import file_hash
from safegen.models.loading import default_device
from safegen.observers import Observation, ObserverIdentity, Sight, register
from safegen.observers._common import pictures

WEIGHTS = "inception-2015-12-05.pt"


@register("inception")
class InceptionObserver:
    """Record features (2048,).

    Args:
        folder: folder with clean-fid's ``inception-2015-12-05.pt`` (default: download it once).
        local_files_only: never download it.
    """

    compares = False

    def __init__(self, folder: str | None = None, *, local_files_only: bool = False) -> None:
        try:
            from cleanfid.inception_torchscript import InceptionV3W
            from cleanfid.resize import build_resizer
        except ImportError as error:
            raise MissingExtraError("the observer inception", "fid") from error
        weights = (Path(folder) if folder else _downloaded(local_files_only)) / WEIGHTS
        if not weights.is_file():
            raise SafegenError(f"{folder}: has no {WEIGHTS}; give the folder that has it")
        try:
            network = InceptionV3W(str(weights.parent), download=False)
        except RuntimeError as error:
            raise SafegenError(
                f"{weights}: is damaged or no TorchScript network; delete it and get it again"
            ) from error
        self._device = default_device()
        self._network: Any = network.eval().to(self._device)
        self._resize = build_resizer("clean")
        settings = {
            "name": "clean-fid",
            "version": version("clean-fid"),
            "weights_hash": file_hash(weights),
        }
        self.identity = ObserverIdentity("inception", settings)

    @torch.no_grad()
    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        resized = np.stack([self._resize(image) for image in pictures(sights)])  # (N, 299, 299, 3)
        pixels = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self._device)
        found = self._network(pixels).float().cpu().numpy()
        return [Observation(features=row) for row in found]


def _downloaded(offline: bool) -> Path:
    """Return the folder with the weights, which clean-fid downloads if missing."""
    from cleanfid.downloads_helper import check_download_inception, inception_url

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / WEIGHTS).is_file():
        try:
            if offline:
                raise OSError("no download is allowed")
            folder.mkdir(parents=True, exist_ok=True)
            # In a folder of its own, since another worker may be downloading too.
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                Path(check_download_inception(fpath=aside)).replace(folder / WEIGHTS)
        except (OSError, HTTPException) as error:
            raise SafegenError(
                f"the observer inception cannot download {inception_url} ({error}); put the file "
                f"into {folder}"
            ) from error
    return folder
