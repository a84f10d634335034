"""Writing a hardened pipeline as a diffusers folder."""

from __future__ import annotations

import copy
import json
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
        pipeline: pipeline to write; it stays as it was.
        folder: new or empty folder.
        half: write half precision.
        card: model card, written as ``README.md``.

    Raises:
        SafegenError: the folder exists and is not empty.
    """
    refuse_full_folder(folder)
    if half:
        pipeline = _in_half(pipeline)
    with folder_atomically(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        _forget_places(temporary)
        if card is not None:
            (temporary / "README.md").write_text(str(card), encoding="utf-8")


def _forget_places(folder: Path) -> None:
    """Remove from all configurations where their parts were read, a path of this machine."""
    for file in (*folder.glob("*.json"), *folder.glob("*/*config.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        places = {"_name_or_path", "name_or_path"} & content.keys()
        if places:
            kept = {key: value for key, value in content.items() if key not in places}
            file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _in_half(pipeline: Any) -> Any:
    """Copy a pipeline with its networks in half precision."""
    copied = copy.copy(pipeline)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            setattr(copied, name, copy.deepcopy(part).to(torch.float16))
    return copied


def refuse_full_folder(folder: Path) -> None:
    """Refuse a folder that ``save_pipeline`` would have to overwrite."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SafegenError(f"{folder}: exists already; name a new folder or remove it")
