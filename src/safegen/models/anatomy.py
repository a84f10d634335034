"""Which weights of a denoiser are vision-only self-attention."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from safegen.errors import SafegenError


def denoiser_of(pipeline: Any) -> nn.Module:
    """The network that predicts noise: ``unet`` or ``transformer``."""
    for name in ("unet", "transformer"):
        part = getattr(pipeline, name, None)
        if part is not None:
            return part  # type: ignore[no-any-return]
    raise SafegenError(f"{type(pipeline).__name__} has no UNet or transformer to edit")


def self_attention_names(denoiser: nn.Module) -> list[str]:
    """Names of all self-attention parameters, sorted.

    A transformer block's first attention is self-attention where it takes no text; a block
    whose first attention is cross-attention (``only_cross_attention``) has none.

    Raises:
        SafegenError: the architecture has no separate self-attention.
    """
    from diffusers.models.attention import BasicTransformerBlock

    names = []
    for block_name, block in denoiser.named_modules():
        if not isinstance(block, BasicTransformerBlock) or block.attn1.is_cross_attention:
            continue
        prefix = f"{block_name}.attn1" if block_name else "attn1"
        names += [f"{prefix}.{name}" for name, _ in block.attn1.named_parameters()]
    if not names:
        raise SafegenError(
            f"{type(denoiser).__name__}: no vision-only self-attention found, so nothing could "
            "be edited; architectures that mix text and image in one attention are not supported"
        )
    return sorted(names)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights in half precision, so that precision variants of one model agree."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_digest(value.detach().to(torch.float16)))
    return digest.hexdigest()


def tensor_digest(value: torch.Tensor) -> bytes:
    """SHA-256 of a tensor's bytes."""
    data = value.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).digest()
