"""Pictures as the latents that a denoiser is trained on, for each kind of autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@torch.no_grad()
def encode_pixels(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled clean latents (N, C, h, w), float32 and on the processor.

    They are the posterior's means, or what a deterministic autoencoder (Sana's) gives, so that
    encoding takes no random draw.

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
    """Float32 for an autoencoder that overflows in half precision, as SDXL's does."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.float()
    try:
        yield
    finally:
        vae.half()
