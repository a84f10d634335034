"""Writing a hardened pipeline for others to load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from safegen.errors import SafegenError
from safegen.files import folder_atomically

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


def save_pipeline(
    pipeline: Any, folder: Path, half: bool = False, card: ModelCard | None = None
) -> None:
    """Write a complete diffusers folder, whole or not at all.

    Args:
        pipeline: to be written.
        folder: a new one, or an empty one.
        half: write half precision.
        card: becomes the folder's ``README.md``.

    Raises:
        SafegenError: the folder exists and holds something.
    """
    refuse_full_folder(folder)
    if half:
        pipeline = pipeline.to(torch.float16)
    with folder_atomically(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        if card is not None:
            (temporary / "README.md").write_text(str(card), encoding="utf-8")


def refuse_full_folder(folder: Path) -> None:
    """Raise an error where ``save_pipeline`` would have to replace something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SafegenError(f"{folder}: exists already; name a new folder or remove it")
