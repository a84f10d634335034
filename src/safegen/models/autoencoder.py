"""Encoding of pictures as latents, for each kind of autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

PIXELS = 2**20
"""Pixels per encoding batch; more would take gigabytes of activations."""


def encode_pictures(vae: Any, images: Sequence[np.ndarray]) -> torch.Tensor:
    """Encode uint8 pictures of one size, each (H, W, 3), as ``encode_pixels`` does."""
    height, width = images[0].shape[:2]
    batch = max(1, min(16, PIXELS // (height * width)))
    parts = [np.stack(images[start : start + batch]) for start in range(0, len(images), batch)]
    pixels = [torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in parts]
    return torch.cat([encode_pixels(vae, each) for each in pixels])


@torch.no_grad()
def encode_pixels(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pictures to scaled clean latents (N, C, h, w), float32, on the CPU.

    Latents are posterior means, or the output of a deterministic autoencoder (Sana's), so encoding
    draws nothing at random.

    Args:
        vae: a diffusers autoencoder.
        pixels: pictures (N, 3, H, W) in [-1, 1].
    """
    video = "temperal_downsample" in vae.config  # of Wan and Qwen-Image: a picture is a frame
    with _without_overflow(vae):
        given = pixels.to(vae.device, vae.dtype)
        encoded = vae.encode(given.unsqueeze(2) if video else given)
    latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    return _scaled(vae, (latents.squeeze(2) if video else latents).float()).cpu()


def _scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Scale latents (N, C, h, w) as the denoiser takes them: (z - mean) / std * factor."""
    norm = getattr(vae, "bn", None)
    if norm is not None:  # FLUX.2: of the channels of 2 x 2 patches
        mean, variance = norm.running_mean.float(), norm.running_var.float()
        patches = nn.functional.pixel_unshuffle(latents, 2)
        scaled = nn.functional.batch_norm(patches, mean, variance, eps=norm.eps)
        unpatched: torch.Tensor = nn.functional.pixel_shuffle(scaled, 2)
        return unpatched
    config = vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        mean, std = config.get("shift_factor") or 0.0, 1.0
    mean, std = (torch.tensor(each, device=latents.device).view(-1, 1, 1) for each in (mean, std))
    return (latents - mean) / std * float(config.get("scaling_factor", 1.0))


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
