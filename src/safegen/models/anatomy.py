"""Vision-only self-attention in a denoiser's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from safegen.errors import SafegenError
from safegen.models.options import Scope


@dataclass(frozen=True)
class Anatomy:
    """Location of an architecture's vision-only self-attention.

    Attributes:
        block: class of the transformer blocks.
        attention: part of a block with attention from picture to picture.
    """

    block: str
    attention: str


SELF_ATTENTION: Mapping[str, Anatomy] = {
    "UNet2DConditionModel": Anatomy("BasicTransformerBlock", "attn1"),
    "PixArtTransformer2DModel": Anatomy("BasicTransformerBlock", "attn1"),
    "SanaTransformer2DModel": Anatomy("SanaTransformerBlock", "attn1"),
}
"""Anatomy by denoiser class: Stable Diffusion 1.x, 2.x and XL; PixArt-alpha and -Sigma; Sana."""

MIXED_ATTENTION: Mapping[str, str] = {
    "SD3Transformer2DModel": "Stable Diffusion 3",
    "FluxTransformer2DModel": "Flux",
    "Flux2Transformer2DModel": "Flux 2",
    "ChromaTransformer2DModel": "Chroma",
    "AuraFlowTransformer2DModel": "AuraFlow",
    "QwenImageTransformer2DModel": "Qwen-Image",
}
"""Denoisers with joint attention over text and picture."""

CROSS_ATTENTION = ".attn2."
"""Part of the parameter names of a block's attention over text."""
OUTPUT_LAYERS = ("conv_norm_out.", "conv_out.", "norm_out.", "proj_out.", "scale_shift_table")
"""Prefixes of the parameter names after the last block."""


def denoiser_of(pipeline: Any) -> nn.Module:
    """Return the network that predicts noise: ``unet`` or ``transformer``."""
    for name in ("unet", "transformer"):
        part = getattr(pipeline, name, None)
        if part is not None:
            return part  # type: ignore[no-any-return]
    raise SafegenError(f"{type(pipeline).__name__} has no UNet or transformer to edit")


def model_size(pipeline: Any) -> int:
    """Side of the model's pictures in pixels."""
    return int(denoiser_of(pipeline).config.sample_size * pipeline.vae_scale_factor)  # type: ignore


def self_attention_names(denoiser: nn.Module) -> list[str]:
    """Names of all self-attention parameters, sorted.

    A transformer block's first attention is self-attention if it takes no text; a block whose
    first attention is cross-attention (``only_cross_attention``) has none.

    Raises:
        SafegenError: the architecture has no separate self-attention, or is unknown.
    """
    anatomy = anatomy_of(denoiser)
    names = []
    for block_name, block in denoiser.named_modules():
        if type(block).__name__ != anatomy.block:
            continue
        attention = getattr(block, anatomy.attention)
        if attention.is_cross_attention:
            continue
        prefix = f"{block_name}.{anatomy.attention}" if block_name else anatomy.attention
        names += [f"{prefix}.{name}" for name, _ in attention.named_parameters()]
    if not names:
        raise SafegenError(
            f"{type(denoiser).__name__}: no vision-only self-attention found, so nothing could "
            "be edited; this configuration attends to text only"
        )
    return sorted(names)


def scope_names(denoiser: nn.Module, scope: Scope) -> list[str]:
    """Names of the parameters that an edit of a scope trains, sorted.

    The output part is the last block, without its cross-attention, and the layers after it, which
    turn features into the prediction.

    Raises:
        SafegenError: see ``self_attention_names``.
    """
    names = set(self_attention_names(denoiser))
    if scope == "self-attention+output":
        blocks = "up_blocks" if hasattr(denoiser, "up_blocks") else "transformer_blocks"
        last = f"{blocks}.{len(getattr(denoiser, blocks)) - 1}."
        names |= {
            name
            for name, _ in denoiser.named_parameters()
            if name.startswith((last, *OUTPUT_LAYERS)) and CROSS_ATTENTION not in name
        }
    return sorted(names)


def anatomy_of(denoiser: nn.Module) -> Anatomy:
    """Look up a denoiser's anatomy.

    Raises:
        SafegenError: the attention mixes text and picture, or the class is unknown.
    """
    classes = [each.__name__ for each in type(denoiser).__mro__]
    known = next((SELF_ATTENTION[name] for name in classes if name in SELF_ATTENTION), None)
    if known is not None:
        return known
    mixed = next((MIXED_ATTENTION[name] for name in classes if name in MIXED_ATTENTION), None)
    if mixed is not None:
        raise SafegenError(
            f"{classes[0]}: {mixed} has text and picture in one attention, so no weight sees the "
            "picture alone and an edit could not stay blind to text; it would take an objective "
            "that holds what the text's tokens get from that attention. Use Stable Diffusion "
            "1.x, 2.x or XL, PixArt or Sana"
        )
    raise SafegenError(
        f"{classes[0]}: which of its weights are vision-only self-attention is not known; known "
        f"are {', '.join(SELF_ATTENTION)}, and another is one entry in safegen.models.anatomy"
    )


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights in half precision, equal for a model's precision variants."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_digest(value.detach().to(torch.float16)))
    return digest.hexdigest()


def tensor_digest(value: torch.Tensor) -> bytes:
    """SHA-256 of a tensor's bytes."""
    data = value.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).digest()
