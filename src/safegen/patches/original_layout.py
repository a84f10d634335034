"""Models in one file, in the original layout that A1111, ComfyUI and others load.

The layout is that of CompVis's latent diffusion (SD 1.x), of Stability's SD 2.x, whose text
encoder has OpenCLIP's names, and of their SDXL. Of Stable Diffusion 3 and FLUX.1 it is the
transformer alone (``safegen.patches.original_transformer``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from safegen.errors import SafegenError
from safegen.files import file_atomically
from safegen.models.single_file import PREDICTS_V, UNET, ZERO_SNR
from safegen.patches.original_transformer import LAYOUTS, transformer_tensors
from safegen.tensors import open_safetensors

Tensors = dict[str, torch.Tensor]

AUTOENCODER = "first_stage_model."
_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
"""Header entries with hashes of the file's former weights."""
_OUTSIDE_BLOCKS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_IN_BLOCK = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)"
    r"\.(\d+)\.(.+)"
)
_IN_AUTOENCODER = (
    ("down_blocks.", "down."),
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.", "mid.attn_1."),
    (".resnets.", ".block."),
    ("downsamplers.0.", "downsample."),
    ("upsamplers.0.", "upsample."),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
    ("group_norm", "norm"),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
)
_IN_OPEN_CLIP = (
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm", "ln_final"),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.", "attn."),
    ("attn.q_proj.", "attn.in_proj_"),
)


class UNetNames:
    """Original names of a ``UNet2DConditionModel``'s weights.

    Args:
        unet: the network; only its shape matters.

    Raises:
        SafegenError: its blocks have different numbers of layers, which the layout cannot express.
    """

    def __init__(self, unet: Any) -> None:
        layers = unet.config.layers_per_block
        if not isinstance(layers, int):
            raise SafegenError(
                f"{type(unet).__name__}: its blocks have different numbers of layers ({layers}), "
                "which the original layout cannot say; use --format diffusers"
            )
        self._layers = layers
        self._up_attends = [hasattr(block, "attentions") for block in unet.up_blocks]

    def original(self, name: str) -> str:
        """Return the original name of a weight, with its prefix in a whole checkpoint.

        Raises:
            SafegenError: the layout has no such weight.
        """
        module, _, kind = name.rpartition(".")
        if module in _OUTSIDE_BLOCKS:
            return f"{UNET}{_OUTSIDE_BLOCKS[module]}.{kind}"
        found = _IN_BLOCK.fullmatch(name)
        if found is None:
            raise SafegenError(_no_place("UNet", name))
        side, block, part, layer, rest = found.groups()
        place = self._place(side, int(block or 0), part, int(layer))
        if part == "resnets":
            first, _, kind = rest.rpartition(".")
            if first not in _IN_RESNET:
                raise SafegenError(_no_place("UNet", name))
            rest = f"{_IN_RESNET[first]}.{kind}"
        return f"{UNET}{place}.{rest.removeprefix('conv.')}"

    def _place(self, side: str | None, block: int, part: str, layer: int) -> str:
        """Locate a part of a block; blocks are numbered consecutively, samplers included."""
        after = block * (self._layers + 1)
        match side, part:
            case None, "resnets":
                return f"middle_block.{2 * layer}"
            case None, "attentions":
                return f"middle_block.{2 * layer + 1}"
            case "down", "downsamplers":
                return f"input_blocks.{after + self._layers + 1}.0.op"
            case "up", "upsamplers":
                beside = 1 + self._up_attends[block]
                return f"output_blocks.{after + self._layers}.{beside}.conv"
        number, column = after + layer, int(part == "attentions")
        return (
            f"output_blocks.{number}.{column}"
            if side == "up"
            else (f"input_blocks.{1 + number}.{column}")
        )


def single_file_tensors(pipeline: Any) -> Tensors:
    """Collect a pipeline's weights under their original names, precision kept.

    Raises:
        SafegenError: the pipeline is no Stable Diffusion or FLUX.1.
    """
    if holds_transformer_alone(pipeline):
        return transformer_tensors(pipeline.transformer)
    _check_family(pipeline)
    names = UNetNames(pipeline.unet)
    tensors = {names.original(name): value for name, value in _weights(pipeline.unet)}
    tensors |= _autoencoder(pipeline.vae)
    tensors |= _text_encoders(pipeline)
    tensors |= _markers(pipeline)
    return {name: value.contiguous() for name, value in tensors.items()}


def holds_transformer_alone(pipeline: Any) -> bool:
    """Tell whether a pipeline's original layout is that of its transformer, without the rest."""
    return type(getattr(pipeline, "transformer", None)).__name__ in LAYOUTS


def save_single_file(
    pipeline: Any, path: Path, metadata: Mapping[str, Any], half: bool = False
) -> None:
    """Write a pipeline as one file in the original layout.

    Scheduler settings, tokenizer and safety checker are not part of the layout.

    Args:
        pipeline: a Stable Diffusion 1.x, 2.x or XL pipeline; of Stable Diffusion 3 and FLUX.1, only
            the transformer is written.
        path: output file (.safetensors).
        metadata: content of the header's ``safegen``, as JSON values.
        half: write half precision.

    Raises:
        SafegenError: the pipeline is of another family, or the file cannot be written.
    """
    tensors = single_file_tensors(pipeline)
    _write(path, tensors, {}, metadata, half)


def overlay_single_file(
    source: Path,
    pipeline: Any,
    changed: Iterable[str],
    path: Path,
    metadata: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Copy an original-layout file with only the named weights replaced.

    Everything else, unknown entries included, stays bit for bit; replaced weights keep the file's
    precision.

    Args:
        source: file that the pipeline was loaded from.
        pipeline: pipeline with the new weights.
        changed: names of the UNet weights to replace.
        path: output file.
        metadata: as in ``save_single_file``, added to the header.
        half: write half precision instead.

    Raises:
        SafegenError: the source lacks these weights, or the copy cannot be written.
    """
    names, parameters = UNetNames(pipeline.unet), dict(_weights(pipeline.unet))
    with open_safetensors(source) as file:
        header = {k: v for k, v in (file.metadata() or {}).items() if k not in _STALE}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in changed:
        original = names.original(name)
        if original not in tensors:
            raise SafegenError(
                f"{source}: has no {original}, so it is no checkpoint in the original layout; "
                "use --format diffusers"
            )
        before = tensors[original]
        tensors[original] = parameters[name].to(before.dtype).reshape(before.shape)
    _write(path, tensors, header, metadata, half)


def _write(
    path: Path,
    tensors: Tensors,
    header: Mapping[str, str],
    metadata: Mapping[str, Any],
    half: bool,
) -> None:
    if half:
        tensors = {n: v.half() if v.is_floating_point() else v for n, v in tensors.items()}
    own = json.dumps(metadata, sort_keys=True)
    with file_atomically(path) as temporary:
        save_file(tensors, temporary, {"format": "pt", **header, "safegen": own})


def _check_family(pipeline: Any) -> None:
    parts = {name: type(part).__name__ for name, part in pipeline.components.items()}
    encoders = [parts.get(name) for name in ("text_encoder", "text_encoder_2") if name in parts]
    known = {"CLIPTextModel", "CLIPTextModelWithProjection"}
    if (
        parts.get("unet") != "UNet2DConditionModel"
        or parts.get("vae") != "AutoencoderKL"
        or not known & {*encoders}
        or {*encoders} - {*known, "NoneType"}
    ):
        raise SafegenError(
            f"{type(pipeline).__name__}: the original layout is that of Stable Diffusion and "
            "FLUX.1 only; use --format diffusers"
        )


def _weights(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in module.state_dict().items():
        yield name, value.detach().cpu()


def _autoencoder(vae: Any) -> Tensors:
    levels = len(vae.config.up_block_types)

    def from_below(found: re.Match[str]) -> str:
        return f"up.{levels - 1 - int(found[1])}."

    tensors = {}
    for name, value in _weights(vae):
        original = re.sub(r"up_blocks\.(\d+)\.", from_below, _renamed(name, _IN_AUTOENCODER))
        if re.search(r"block\.|attentions|samplers", original.replace(".block.", ".")):
            raise SafegenError(_no_place("autoencoder", name))
        if ".attn_1." in original and value.dim() == 2:
            value = value[:, :, None, None]  # the original has convolutions
        tensors[AUTOENCODER + original] = value
    return tensors


def _text_encoders(pipeline: Any) -> Tensors:
    first, second = pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)
    if "text_encoder_2" not in pipeline.components:
        if _is_open_clip(first):
            return _open_clip(first, "cond_stage_model.model.")
        return _clip(first, "cond_stage_model.transformer.")
    found = _clip(first, "conditioner.embedders.0.transformer.") if first is not None else {}
    number = 0 if first is None else 1  # the refiner has only the second one
    return found | _open_clip(second, f"conditioner.embedders.{number}.model.")


def _is_open_clip(encoder: Any) -> bool:
    # OpenAI's CLIP uses the quick GELU everywhere, OpenCLIP's text towers the exact one.
    return bool(encoder.config.hidden_act == "gelu")


def _clip(encoder: Any, prefix: str) -> Tensors:
    return {f"{prefix}text_model.{name}": value for name, value in _text_weights(encoder)}


def _open_clip(encoder: Any, prefix: str) -> Tensors:
    state = dict(_text_weights(encoder))
    tensors = {}
    for name, value in state.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            parts = [name, name.replace("q_proj", "k_proj"), name.replace("q_proj", "v_proj")]
            value = torch.cat([state[part] for part in parts])
        if name == "text_projection.weight":
            name, value = "text_projection", value.T
        tensors[prefix + _renamed(name, _IN_OPEN_CLIP)] = value
    return tensors


def _text_weights(encoder: Any) -> Iterator[tuple[str, torch.Tensor]]:
    # Whether the names start with the wrapper's depends on the version of transformers.
    for name, value in _weights(encoder):
        yield name.removeprefix("text_model."), value


def _markers(pipeline: Any) -> Tensors:
    """Make the empty tensors that mark v-prediction in an SDXL file, as web UIs read them."""
    config = pipeline.scheduler.config
    if "text_encoder_2" not in pipeline.components:
        return {}
    predicts_v = config.get("prediction_type") == "v_prediction"
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    names = [*[PREDICTS_V] * predicts_v, *[ZERO_SNR] * zero_snr]
    return {name: torch.empty(0) for name in names}


def _renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    for ours, original in table:
        name = name.replace(ours, original)
    return name


def _no_place(part: str, name: str) -> str:
    return (
        f"{part}: the original layout has no place for {name}, so it cannot hold this model; "
        "use --format diffusers"
    )
