"""LoRA files, in the names of diffusers and in those of kohya's scripts and web UIs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from safegen.errors import SafegenError
from safegen.files import file_atomically
from safegen.models.anatomy import model_size
from safegen.models.single_file import UNET
from safegen.patches.low_rank import Factors
from safegen.patches.original_layout import UNetNames

Layout = Literal["diffusers", "kohya"]
"""Names of the weights: ``kohya`` loads in A1111, ComfyUI, sd-scripts and diffusers;
``diffusers`` (PEFT's names) in diffusers only, but for all networks."""
GENERATIVE_MODELS = "https://github.com/Stability-AI/generative-models"
OVERHEAD = 1024
"""Most bytes that the names of one weight's factors take in a file."""


def save_lora(
    path: Path,
    factors: Mapping[str, Factors],
    layout: Layout,
    pipeline: Any,
    metadata: Mapping[str, Any],
) -> None:
    """Write factors as a LoRA of scale 1.

    Args:
        path: output file (.safetensors).
        factors: factors by weight.
        layout: names of the weights.
        pipeline: base model of the LoRA.
        metadata: content of the header's ``safegen``, as JSON values.

    Raises:
        SafegenError: the network has no names in kohya's layout, or the file cannot be written.
    """
    header = {"format": "pt", "safegen": json.dumps(metadata, sort_keys=True)}
    if layout == "kohya":
        header |= _web_ui_header(factors, pipeline, str(metadata.get("concept", "unsafe")))
    else:
        # Without it, older versions of diffusers scale weights of different ranks wrongly.
        adapter = _adapter(factors, denoiser_name(pipeline))
        header["lora_adapter_metadata"] = json.dumps(adapter, sort_keys=True)
    with file_atomically(path) as temporary:
        save_file(lora_tensors(factors, layout, pipeline), temporary, header)


def usual_layout(pipeline: Any) -> Layout:
    """Choose the layout that most programs load: kohya's, if it has names for the network."""
    return "kohya" if denoiser_name(pipeline) == "unet" else "diffusers"


def denoiser_name(pipeline: Any) -> str:
    """Return the name of a pipeline's denoiser: ``unet`` or ``transformer``."""
    return "unet" if getattr(pipeline, "unet", None) is not None else "transformer"


def lora_tensors(
    factors: Mapping[str, Factors], layout: Layout, pipeline: Any
) -> dict[str, torch.Tensor]:
    """Tensors of a LoRA file, by their names in a layout.

    Raises:
        SafegenError: the network has no names in kohya's layout.
    """
    denoiser = denoiser_name(pipeline)
    if layout == "kohya":
        if denoiser != "unet":
            raise SafegenError(
                f"kohya's layout is for Stable Diffusion's UNets, and this model has a {denoiser}; "
                "use --layout diffusers"
            )
        tensors = _kohya(factors, pipeline.unet)
    else:
        tensors = {}
        for name, (a, b) in factors.items():
            module = f"{denoiser}.{name.removesuffix('.weight')}"
            tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    return {name: value.contiguous() for name, value in tensors.items()}


def _kohya(factors: Mapping[str, Factors], unet: Any) -> dict[str, torch.Tensor]:
    # sd-scripts knows SDXL's modules by their original names only; the others know both.
    original = UNetNames(unet).original if _is_xl(unet) else str
    alpha = _alpha(factors)
    tensors = {}
    for name, (a, b) in factors.items():
        module = original(name).removeprefix(UNET).removesuffix(".weight").replace(".", "_")
        module = f"lora_unet_{module}"
        share = sqrt(len(a) / alpha)
        tensors[f"{module}.lora_down.weight"] = share * a
        tensors[f"{module}.lora_up.weight"] = share * b
        tensors[f"{module}.alpha"] = torch.tensor(alpha, dtype=a.dtype)
    return tensors


def _alpha(factors: Mapping[str, Factors]) -> float:
    # Readers scale a product by alpha / rank. diffusers misreads differing alphas, so all are equal
    # and the factors compensate.
    return float(max(len(a) for a, _ in factors.values()))


def _is_xl(unet: Any) -> bool:
    return bool(unet.config.addition_embed_type == "text_time")


def _web_ui_header(factors: Mapping[str, Factors], pipeline: Any, concept: str) -> dict[str, str]:
    """Header entries from which web UIs and sd-scripts read a LoRA's base model and size.

    ``ss_…`` are sd-scripts' entries, ``modelspec.…`` those of Stability's ModelSpec 1.0.0.
    """
    config, alpha = pipeline.unet.config, _alpha(factors)
    predicts_v = pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    version, architecture = {
        768: ("sd_v1", "stable-diffusion-v1"),
        1024: ("sd_v2", f"stable-diffusion-v2-{'768-v' if predicts_v else '512'}"),
    }.get(config.cross_attention_dim, ("", ""))
    if _is_xl(pipeline.unet):
        version, architecture = "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"
    elif version and predicts_v:
        version += "_v"
    size = model_size(pipeline)
    header = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(int(alpha)),
        "ss_network_alpha": str(alpha),
        "ss_v2": str(version.startswith("sd_v2")),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": f"safegen: without {concept}",
        "modelspec.implementation": GENERATIVE_MODELS if _is_xl(pipeline.unet) else "diffusers",
        "modelspec.prediction_type": "v" if predicts_v else "epsilon",
        "modelspec.resolution": f"{size}x{size}",
    }
    if version:
        header["ss_base_model_version"] = version
        header["modelspec.architecture"] = f"{architecture}/lora"
    return header


def _adapter(factors: Mapping[str, Factors], denoiser: str) -> dict[str, Any]:
    """Arguments of PEFT's ``LoraConfig`` that leave the factors' product unscaled."""
    ranks = {name.removesuffix(".weight"): len(a) for name, (a, _) in factors.items()}
    common = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != common}
    arguments = {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }
    return {f"{denoiser}.{name}": value for name, value in arguments.items()}
