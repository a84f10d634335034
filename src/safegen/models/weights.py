"""Folders with weights, local or on the Hugging Face hub: located, checked and hashed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from safegen.errors import SafegenError, first_line
from safegen.files import file_hash
from safegen.tensors import open_safetensors

PICKLE_SUFFIXES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
_NEEDED = ("model*.safetensors", "*.json")


def model_folder(source: str, *, local_files_only: bool = False) -> Path:
    """Locate the folder of a ``transformers`` model, fetched from the hub if needed.

    Args:
        source: a folder, or ``OWNER/NAME`` on the hub.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: there is no such folder or model.
    """
    from huggingface_hub import snapshot_download

    if _is_folder(source):
        return Path(source)
    return Path(
        _from_hub(
            source,
            lambda: snapshot_download(
                source, allow_patterns=list(_NEEDED), local_files_only=local_files_only
            ),
        )
    )


def hub_revision(source: str, file: str, *, local_files_only: bool = False) -> str:
    """Return a hub id's current commit; ``file`` is any small file in it.

    Raises:
        SafegenError: the hub does not answer.
    """
    from huggingface_hub import hf_hub_download

    path = _from_hub(
        source, lambda: hf_hub_download(source, file, local_files_only=local_files_only)
    )
    return Path(path).parents[file.count("/")].name  # .../snapshots/COMMIT/FILE


def weight_files(folder: Path) -> list[Path]:
    """List a folder's safetensors files, sorted.

    Raises:
        SafegenError: there are none, or one is truncated.
    """
    files = sorted(folder.glob("*.safetensors"))
    pickles = [file for file in folder.glob("*") if file.suffix in PICKLE_SUFFIXES]
    if not files and pickles:
        raise SafegenError(
            f"{pickles[0]}: is a pickle, which can run code when it is opened; "
            "convert it with save_pretrained(safe_serialization=True)"
        )
    if not files:
        raise SafegenError(f"{folder}: has no safetensors weights; check the path")
    for file in files:
        check_safetensors(file)
    return files


def check_safetensors(file: Path) -> None:
    """Refuse a file that is truncated or no safetensors; reads only the header."""
    with open_safetensors(file):
        pass


def weights_hash(folder: Path) -> str:
    """SHA-256 of a folder's weights: of one file, or of the hashes of several.

    Raises:
        SafegenError: there are none, or one is truncated.
    """
    hashes = [file_hash(file) for file in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def content_hash(folder: Path) -> str:
    """SHA-256 of all weights and settings below a folder, by their names and contents."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            name = file.relative_to(folder).as_posix()
            digest.update(f"{name}\n{file_hash(file)}\n".encode())
    return digest.hexdigest()


def _is_folder(source: str) -> bool:
    path = Path(source)
    if path.exists() and not path.is_dir():
        raise SafegenError(f"{source}: is a file; give the folder that save_pretrained wrote")
    if not path.exists() and source.startswith((".", "/", "~")):
        raise SafegenError(f"{source}: no such model folder; check the path")
    return path.is_dir()


def _from_hub(source: str, fetch: Callable[[], str]) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    # The hub's notes on retries would stand beside the one-line error.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return fetch()
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise SafegenError(
            f"{source}: is no folder here and cannot be had from the Hugging Face hub "
            f"({first_line(error)}); check the name and the connection, or download it and give "
            "its folder"
        ) from error
