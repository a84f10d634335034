"""LoRA files, in the names that diffusers reads and in those of kohya's scripts and web UIs."""

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
from safegen.patches.low_rank import Factors

Layout = Literal["diffusers", "kohya"]
"""``diffusers`` is PEFT's, for ``load_lora_weights``; ``kohya`` is what A1111 and ComfyUI load
best, and diffusers too."""
OVERHEAD = 1024
"""Bytes that the names of one weight's factors take in a file, at most."""


def save_lora(
    path: Path,
    factors: Mapping[str, Factors],
    layout: Layout,
    denoiser: str,
    metadata: Mapping[str, Any],
) -> None:
    """Write factors as a LoRA of scale 1.

    Args:
        path: of the file (.safetensors).
        factors: by weight.
        layout: of its names.
        denoiser: what the pipeline calls the network, ``unet`` or ``transformer``.
        metadata: what its header says under ``safegen``, as JSON values.

    Raises:
        SafegenError: kohya's layout has no names for this network, or the file cannot be written.
    """
    header = {"format": "pt", "safegen": json.dumps(metadata, sort_keys=True)}
    if layout == "diffusers":
        # Without it, older versions of diffusers scale weights of different ranks wrongly.
        header["lora_adapter_metadata"] = json.dumps(_adapter(factors, denoiser), sort_keys=True)
    with file_atomically(path) as temporary:
        save_file(lora_tensors(factors, layout, denoiser), temporary, header)


def lora_tensors(
    factors: Mapping[str, Factors], layout: Layout, denoiser: str
) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file, by their names in a layout.

    Raises:
        SafegenError: kohya's layout has no names for this network.
    """
    if layout == "kohya" and denoiser != "unet":
        raise SafegenError(
            f"kohya's layout is for Stable Diffusion's UNets, and this model has a {denoiser}; "
            "use --layout diffusers"
        )
    tensors = _kohya(factors) if layout == "kohya" else {}
    if layout == "diffusers":
        for name, (a, b) in factors.items():
            module = f"{denoiser}.{name.removesuffix('.weight')}"
            tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    return {name: value.contiguous() for name, value in tensors.items()}


def _kohya(factors: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    # Readers scale a product by alpha / rank. diffusers mistakes alphas that differ, so all have
    # the same one, and the factors make up for it.
    alpha = float(max(len(a) for a, _ in factors.values()))
    tensors = {}
    for name, (a, b) in factors.items():
        module = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        share = sqrt(len(a) / alpha)
        tensors[f"{module}.lora_down.weight"] = share * a
        tensors[f"{module}.lora_up.weight"] = share * b
        tensors[f"{module}.alpha"] = torch.tensor(alpha, dtype=a.dtype)
    return tensors


def _adapter(factors: Mapping[str, Factors], denoiser: str) -> dict[str, Any]:
    """The arguments of PEFT's ``LoraConfig`` under which the factors' product is not scaled."""
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
