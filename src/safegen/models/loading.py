"""Loading a pipeline from a folder, a hub id or the lab; safetensors only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from safegen.errors import SafegenError
from safegen.lab import weights_folder

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

PICKLE_SUFFIXES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
LAB = "lab"


def load_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    local_files_only: bool = False,
) -> DiffusionPipeline:
    """Load a diffusers text-to-image pipeline.

    Args:
        source: ``lab``, a diffusers folder, or a Hugging Face id.
        dtype: of the weights; float32 unless given.
        device: where to; the first GPU if there is one, else the processor.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the source is missing, incomplete, truncated, or a pickle.
    """
    quieten()
    import torch
    from diffusers import DiffusionPipeline

    location = resolve(source)
    if isinstance(location, Path):
        check_folder(location)
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(location),
            dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=local_files_only or isinstance(location, Path),
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SafegenError(
            f"{source}: cannot be loaded as a diffusers pipeline ({reason}); "
            "give a diffusers folder or hub id with safetensors weights"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device or default_device())


def quieten() -> None:
    """Keep the libraries' progress bars and notes on optional packages off the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def default_device() -> str:
    """``cuda``, ``mps`` or ``cpu``: the first that is there."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve(source: str | Path) -> Path | str:
    """The folder a source means, or the hub id it is."""
    if str(source) == LAB:
        return weights_folder()
    path = Path(source)
    if path.is_file():
        raise SafegenError(_not_a_folder(path))
    if path.is_dir():
        return path
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")):
        raise SafegenError(f"{source}: no such model folder; check the path")
    return str(source)


def is_lab(pipeline: Any) -> bool:
    """Whether a pipeline was loaded from the lab's weights."""
    source: str | None = getattr(pipeline, "name_or_path", None)
    return source is not None and Path(source).resolve() == weights_folder().resolve()


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no pipeline, lacks its denoiser, or has broken weights."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise SafegenError(
            f"{folder}: no model_index.json, so it is no diffusers pipeline; "
            "give the folder that save_pretrained wrote"
        )
    try:
        parts: dict[str, Any] = json.loads(index.read_text())
    except ValueError as error:
        raise SafegenError(f"{index}: not valid JSON ({error}); download it again") from error
    denoiser = next((part for part in ("unet", "transformer") if part in parts), None)
    if denoiser is None or not (folder / denoiser / "config.json").is_file():
        raise SafegenError(
            f"{folder}: has no UNet (no {denoiser or 'unet'}/config.json); "
            "a text-to-image pipeline needs one"
        )
    for name, value in parts.items():
        if isinstance(value, list) and value[0] is not None:
            _check_part(folder / name)


def _check_part(part: Path) -> None:
    pickles = [file for file in part.glob("*") if file.suffix in PICKLE_SUFFIXES]
    tensors = list(part.glob("*.safetensors"))
    if pickles and not tensors:
        raise SafegenError(
            f"{pickles[0]}: is a pickle, which can run code when it is opened; "
            "convert it with save_pretrained(safe_serialization=True)"
        )
    for file in tensors:
        check_safetensors(file)


def check_safetensors(file: Path) -> None:
    """Refuse a file that is truncated or is no safetensors; reads the header only."""
    try:
        with safe_open(file, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise SafegenError(
            f"{file}: truncated or no safetensors file ({error}); download it again"
        ) from error


def _not_a_folder(path: Path) -> str:
    if path.suffix in PICKLE_SUFFIXES:
        return (
            f"{path}: is a pickle checkpoint, which can run code when it is opened; "
            "convert it to a diffusers folder with safetensors weights"
        )
    return (
        f"{path}: is a file; give a diffusers folder "
        "(diffusers' from_single_file and save_pretrained make one)"
    )
