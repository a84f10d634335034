"""Loading a whole model from one file in the original layout, without a hub.

Such a file holds only the weights of Stable Diffusion 1.x, 2.x or XL, so sizes, scheduler and
tokenizers come from configurations that ship with this package, or from a diffusers folder given by
the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import SafegenError, first_line
from safegen.files import read_object
from safegen.models.shipped import CONFIGS, FOLDER, shipped_tokenizers
from safegen.models.weights import PICKLE_SUFFIXES
from safegen.tensors import open_safetensors

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
_FIRST = f"{UNET}input_blocks.0.0.weight"
_TEXT = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_OTHERS = {
    "autoencoder": ("first_stage_model.",),
    "text encoder": ("cond_stage_model.", "conditioner.embedders."),
}
PREDICTS_V, ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors that mark an SDXL file's training, as web UIs read them."""


def load_single_file(
    path: Path, dtype: torch.dtype, config: str | None = None, allow_pickle: bool = False
) -> DiffusionPipeline:
    """Load a checkpoint in the original layout.

    Args:
        path: ``.safetensors``, or a pickle such as ``.ckpt``.
        dtype: dtype of the weights.
        config: one of ``CONFIGS``, or a diffusers folder with all configurations and tokenizers
            (default: recognised from the file).
        allow_pickle: also read pickles, with torch's restricted reader.

    Raises:
        SafegenError: the file is truncated, no such checkpoint or not recognised, or a pickle
            that is refused or unreadable.
    """
    shapes = _shapes(path, allow_pickle)
    name = config or recognise(shapes, path)
    shipped = name in CONFIGS
    folder = FOLDER / name if shipped else Path(name)
    pipeline = _load(path, folder, dtype, shipped_tokenizers(name) if shipped else {})
    _follow_markers(pipeline, shapes)
    pipeline.register_to_config(_name_or_path=str(path))
    return pipeline


def recognise(shapes: Shapes, path: Path) -> str:
    """Recognise a checkpoint as one of ``CONFIGS`` by its weights' names and shapes.

    Raises:
        SafegenError: no configuration fits, or more than one.
    """
    if not any(name.startswith(UNET) for name in shapes):
        raise SafegenError(
            f"{path}: holds no UNet in the original layout ({UNET}…); give a whole checkpoint of "
            "Stable Diffusion 1.x, 2.x or XL, or a diffusers folder"
        )
    for part, prefixes in _OTHERS.items():
        if not any(name.startswith(prefixes) for name in shapes):
            raise SafegenError(f"{path}: has no {part}, which a whole checkpoint needs")
    channels, width = (shapes.get(name, (0, 0))[1] for name in (_FIRST, _TEXT))
    if channels != 4:
        raise SafegenError(
            f"{path}: its UNet takes {channels} channels instead of a latent's 4, as those for "
            "inpainting do; give a text-to-image model"
        )
    if width == 1024:
        raise SafegenError(
            f"{path}: is a Stable Diffusion 2.x, whose file does not say what it predicts; give "
            "--config sd2 (v, 768 pixels) or --config sd2-base (epsilon, 512 pixels)"
        )
    known = {768: "sd1", 2048: "sdxl"}
    if width not in known:
        raise SafegenError(
            f"{path}: is no Stable Diffusion 1.x, 2.x or XL base model; give the diffusers folder "
            "with its configuration: --config FOLDER"
        )
    return known[width]


def _shapes(path: Path, allow_pickle: bool) -> Shapes:
    """Read the shapes of all weights by name; of safetensors, only the header."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return _pickled_shapes(path, allow_pickle)
    with open_safetensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _pickled_shapes(path: Path, allow_pickle: bool) -> Shapes:
    import torch

    if not allow_pickle:
        raise SafegenError(
            f"{path}: is a pickle, which can run code when it is opened; convert it to "
            "safetensors, or trust it with --allow-pickle"
        )
    try:
        state = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # bytes that are no pickle may raise any class
        raise SafegenError(
            f"{path}: holds more than weights, which is not read even with --allow-pickle, or is "
            "truncated; convert it to safetensors"
        ) from error
    while isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise SafegenError(
            f"{path}: holds a {type(state).__name__} instead of weights by name; give a whole "
            "checkpoint of Stable Diffusion 1.x, 2.x or XL"
        )
    return {str(name): tuple(each.shape) for name, each in state.items() if hasattr(each, "shape")}


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        raise SafegenError(
            f"--config {folder}: no model_index.json; give a diffusers folder with the "
            f"configuration of the file, or one of: {', '.join(CONFIGS)}"
        )
    return read_object(path, f"give another --config, or one of: {', '.join(CONFIGS)}")


def _load(path: Path, folder: Path, dtype: torch.dtype, tokenizers: dict[str, Any]) -> Any:
    import diffusers

    kind = str(_index(folder).get("_class_name"))
    pipeline: Any = getattr(diffusers, kind, None)
    if not hasattr(pipeline, "from_single_file"):
        raise SafegenError(
            f"{folder}: a {kind} cannot be loaded from a single file; give the folder of the model"
        )
    try:
        return pipeline.from_single_file(
            str(path),
            config=str(folder),
            dtype=dtype,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            **tokenizers,
        )
    except NotImplementedError as error:  # weights missing from the file are on no device
        raise SafegenError(
            f"{path}: lacks weights that the configuration {folder.name} has; download it again, "
            "or give the diffusers folder with its own configuration: --config FOLDER"
        ) from error
    except Exception as error:  # parts with a broken configuration may raise any class
        raise SafegenError(
            f"{path}: cannot be loaded with the configuration {folder.name} ({first_line(error)}); "
            "give the diffusers folder with its own configuration: --config FOLDER"
        ) from error


def _follow_markers(pipeline: Any, shapes: Shapes) -> None:
    """Set the scheduler by the file's markers."""
    if PREDICTS_V not in shapes or not hasattr(pipeline, "text_encoder_2"):
        return
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipeline.scheduler = type(pipeline.scheduler).from_config(
        pipeline.scheduler.config,
        prediction_type="v_prediction",
        **(zero if ZERO_SNR in shapes else {}),
    )
