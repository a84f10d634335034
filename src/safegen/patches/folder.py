"""Writing a hardened pipeline for others to load."""

from __future__ import annotations

import copy
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
        pipeline: to be written; it stays as it is.
        folder: a new one, or an empty one.
        half: write half precision.
        card: becomes the folder's ``README.md``.

    Raises:
        SafegenError: the folder exists and holds something.
    """
    refuse_full_folder(folder)
    if half:
        pipeline = _in_half(pipeline)
    with folder_atomically(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        if card is not None:
            (temporary / "README.md").write_text(str(card), encoding="utf-8")


def _in_half(pipeline: Any) -> Any:
    """A copy of a pipeline with networks in half precision."""
    copied = copy.copy(pipeline)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            setattr(copied, name, copy.deepcopy(part).to(torch.float16))
    return copied


def refuse_full_folder(folder: Path) -> None:
    """Raise an error where ``save_pipeline`` would have to replace something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SafegenError(f"{folder}: exists already; name a new folder or remove it")
