"""Writing a hardened pipeline for others to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.files import folder_atomically


def save_pipeline(pipeline: Any, folder: Path, half: bool = False) -> None:
    """Write a complete diffusers folder, whole or not at all.

    Raises:
        SafegenError: the folder exists and holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SafegenError(f"{folder}: exists already; name a new folder or remove it")
    if half:
        pipeline = pipeline.to(torch.float16)
    with folder_atomically(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
