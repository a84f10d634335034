"""Encoding of pictures as latents, for each kind of autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@torch.no_grad()
def encode_pixels(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pictures to scaled clean latents (N, C, h, w), float32, on the CPU.

    Latents are posterior means, or the output of a deterministic autoencoder (Sana's), so encoding
    draws nothing at random.

    Args:
        vae: a diffusers autoencoder.
        pixels: pictures (N, 3, H, W) in [-1, 1].
    """
    with _without_overflow(vae):
        encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    shift = vae.config.get("shift_factor") or 0.0
    scaled: torch.Tensor = ((latents.float() - shift) * vae.config.scaling_factor).cpu()
    return scaled


@contextmanager
def _without_overflow(vae: Any) -> Iterator[None]:
    """Switch an autoencoder that overflows in half precision, as SDXL's does, to float32."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.float()
    try:
        yield
    finally:
        vae.half()
