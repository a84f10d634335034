"""Loading a pipeline from a folder, hub id, single file or profile name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import SafegenError, first_line
from safegen.files import read_object
from safegen.models.kernels import plain_kernels
from safegen.models.weights import PICKLE_SUFFIXES, check_safetensors
from safegen.profiles import profile_for, profile_of

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_NEEDED = {"scheduler", "text_encoder", "tokenizer", "vae"}


def load_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    variant: str | None = None,
    config: str | None = None,
    allow_pickle: bool = False,
    local_files_only: bool = False,
    plain_kernels: bool = False,
) -> DiffusionPipeline:
    """Load a diffusers text-to-image pipeline.

    Args:
        source: a profile's name such as ``lab``, a diffusers folder, a Hugging Face id, or a single
            file in the original layout, which needs no hub.
        dtype: dtype of the weights (default: float32, whatever the files hold).
        device: target device (default: the first GPU, else the CPU).
        variant, config, allow_pickle, local_files_only: see ``safegen.models.options``.
        plain_kernels: see ``safegen.models.kernels.use_plain_kernels``; applies to this process.

    Raises:
        SafegenError: the source is missing, incomplete, truncated or a pickle, or an option has no
            effect on it.
    """
    quieten()
    import torch

    from safegen.models.kernels import use_plain_kernels
    from safegen.models.single_file import load_single_file

    if plain_kernels:
        use_plain_kernels()
    precision = dtype or torch.float32
    if profile_of(source) is None and Path(source).is_file():
        if variant is not None:
            raise SafegenError(f"{source}: a single file has no variants; leave out --variant")
        pipeline = load_single_file(Path(source), precision, config, allow_pickle)
    else:
        if config is not None:
            raise SafegenError(f"{source}: --config is for a single file; leave it out")
        pipeline = _load_parts(source, precision, variant, allow_pickle, local_files_only)
    _lighten(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device or default_device())


def load_denoiser(source: str | Path, **options: Any) -> torch.nn.Module:
    """Load a model's denoiser without its weights, from configurations; a single file with them.

    Args:
        source: see ``load_pipeline``.
        options: options of ``load_pipeline``.

    Raises:
        SafegenError: the source has no denoiser of a known class.
    """
    if profile_of(source) is None and Path(source).is_file():
        from safegen.models.anatomy import denoiser_of

        return denoiser_of(load_pipeline(source, device="cpu", **options))
    for name in ("config", "variant"):
        if options.get(name) is not None:
            raise SafegenError(
                f"{source}: --{name} does not matter where only configurations are read; "
                "leave it out"
            )
    quieten()
    import diffusers
    import torch

    location = resolve(source)
    local = options.get("local_files_only", False) or isinstance(location, Path)
    try:
        index = diffusers.DiffusionPipeline.load_config(str(location), local_files_only=local)
        place = next(name for name in ("unet", "transformer") if name in index)
        kind = getattr(diffusers, index[place][1])
        config = kind.load_config(str(location), subfolder=place, local_files_only=local)
        with torch.device("meta"):
            return kind.from_config(config)  # type: ignore[no-any-return]
    except Exception as error:  # broken configurations may raise any class
        raise SafegenError(
            f"{source}: has no configuration of a known denoiser ({first_line(error)}); "
            "give a diffusers folder or hub id"
        ) from error


def _load_parts(
    source: str | Path,
    dtype: torch.dtype,
    variant: str | None,
    allow_pickle: bool,
    local_files_only: bool,
) -> DiffusionPipeline:
    """Load a pipeline with one file per part, from a folder or the hub."""
    from diffusers import DiffusionPipeline

    location = resolve(source)
    if isinstance(location, Path):
        check_folder(location, variant, allow_pickle)
    local = local_files_only or isinstance(location, Path)
    try:
        index = DiffusionPipeline.load_config(str(location), local_files_only=local)
        # A pipeline that was saved without a part, such as T5, is loaded if told so only.
        absent = {name: None for name, value in index.items() if value == [None, None]}
        pipeline = DiffusionPipeline.from_pretrained(
            str(location),
            dtype=dtype,
            variant=variant,
            use_safetensors=None if allow_pickle else True,
            local_files_only=local,
            **absent,
        )
    except Exception as error:  # parts with a broken configuration may raise any class
        raise SafegenError(
            f"{source}: cannot be loaded as a diffusers pipeline ({first_line(error)}); "
            "give a diffusers folder or hub id with safetensors weights"
        ) from error
    found = [name for name, part in pipeline.components.items() if part is not None]
    if not {*found} >= _NEEDED or not {"unet", "transformer"} & {*found}:
        raise SafegenError(
            f"{source}: has only {', '.join(found) or 'no parts'}; a text-to-image pipeline needs "
            f"a unet or transformer, and {', '.join(sorted(_NEEDED))}"
        )
    return pipeline


def _lighten(pipeline: Any) -> None:
    """Spare a Stable Diffusion 3 without T5 the tokens of zeros in its place."""
    joint = type(pipeline).__name__ == "StableDiffusion3Pipeline"
    if joint and pipeline.text_encoder_3 is None and not plain_kernels():
        from safegen.models.merging import merge_zero_tokens

        merge_zero_tokens(pipeline.transformer)


def quieten() -> None:
    """Silence the libraries' progress bars and notes on optional packages."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def default_device() -> str:
    """Return the first available device of ``cuda``, ``mps`` and ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve(source: str | Path) -> Path | str:
    """Resolve a source to a folder or hub id.

    Raises:
        SafegenError: there is no such folder; for a profile, the error names what builds it.
    """
    profile = profile_of(source)
    source = source if profile is None else profile.source
    path = Path(source)
    if profile is not None and profile.built_by and not path.is_dir():
        raise SafegenError(
            f"{profile.name}: its weights are not there ({path}); build them: {profile.built_by}"
        )
    if path.is_file():
        raise SafegenError(f"{path}: is a file; give a diffusers folder or a hub id")
    if path.is_dir():
        return path
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise SafegenError(
            f"{source}: no such model folder, and no hub id (OWNER/NAME); check the path"
        )
    return str(source)


def public_name(pipeline: Any) -> str:
    """Return a model's name on any machine: its profile, hub id or class; no local path."""
    profile = profile_for(pipeline)
    if profile is not None:
        return profile.name
    source = str(getattr(pipeline, "name_or_path", "") or "")
    is_hub_id = HUB_ID.fullmatch(source) and not Path(source).exists()
    return source if is_hub_id else type(pipeline).__name__


def check_folder(folder: Path, variant: str | None = None, allow_pickle: bool = False) -> None:
    """Refuse a folder that is no pipeline, lacks a denoiser, or has broken weights.

    Args:
        folder: folder written by ``save_pretrained``.
        variant: variant of the weight files, which must exist.
        allow_pickle: accept pickled weights.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise SafegenError(
            f"{folder}: no model_index.json, so it is no diffusers pipeline; "
            "give the folder that save_pretrained wrote"
        )
    parts = read_object(index)
    denoiser = next((part for part in ("unet", "transformer") if part in parts), None)
    if denoiser is None or not (folder / denoiser / "config.json").is_file():
        raise SafegenError(
            f"{folder}: has no UNet (no {denoiser or 'unet'}/config.json); "
            "a text-to-image pipeline needs one"
        )
    for name, value in parts.items():
        if isinstance(value, list) and any(value):
            _check_part(folder / name, allow_pickle)
    _check_variant(folder / denoiser, variant)


def _check_part(part: Path, allow_pickle: bool) -> None:
    for file in part.glob("*config.json"):
        read_object(file)
    tensors = list(part.glob("*.safetensors"))
    if not tensors and not allow_pickle:
        refuse_pickles(part)
    for file in tensors:
        check_safetensors(file)


def refuse_pickles(part: Path) -> None:
    """Refuse a folder with pickled weights."""
    for file in part.glob("*"):
        if file.suffix in PICKLE_SUFFIXES:
            raise SafegenError(
                f"{file}: is a pickle, which can run code when it is opened; convert it with "
                "save_pretrained(safe_serialization=True), or trust it with --allow-pickle"
            )


def _check_variant(part: Path, variant: str | None) -> None:
    """Refuse a folder that has the weights only in other variants."""
    names = [file.name for file in part.glob("*") if file.suffix in {".safetensors", ".bin"}]
    found = {_variant_of(name) for name in names}
    if names and variant not in found:
        asked = f"of the variant {variant}" if variant else "without a variant"
        there = " or ".join(f"--variant {each}" if each else "no --variant" for each in found)
        raise SafegenError(f"{part}: has no weights {asked}; give {there}")


def _variant_of(file: str) -> str | None:
    """Parse ``model.fp16.safetensors`` or ``model.fp16-00001-of-00002.safetensors``."""
    parts = file.split(".")
    return parts[1].partition("-")[0] if len(parts) > 2 else None
