"""Latents packed as tokens of 2 x 2 patches, as FLUX.1 and its kin take them."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import Family


class PackedFamily(Family):
    """Pipelines whose latents are packed."""

    def unpacked(self, output: torch.Tensor, z_t: torch.Tensor) -> torch.Tensor:
        return unpack(output, z_t)

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        return pack(latents)

    def latent_shape(self, pipeline: Any) -> tuple[int, int, int]:
        channels, height, width = super().latent_shape(pipeline)
        return channels // 4, height, width


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Pack latents (B, C, H, W) as tokens (B, H/2 * W/2, 4 C)."""
    count, channels, height, width = latents.shape
    patches = latents.reshape(count, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, 4 * channels)


def unpack(tokens: torch.Tensor, z_t: torch.Tensor) -> torch.Tensor:
    """Invert ``pack`` for latents of the shape of z_t (B, C, H, W)."""
    count, _, height, width = z_t.shape
    patches = tokens.reshape(count, height // 2, width // 2, -1, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(count, -1, height, width)


def image_ids(z_t: torch.Tensor) -> torch.Tensor:
    """Positions (H/2 * W/2, 3) of packed tokens: zero, row and column."""
    rows, columns = (torch.arange(side // 2, device=z_t.device) for side in z_t.shape[2:])
    grid = torch.cartesian_prod(rows, columns)
    return torch.nn.functional.pad(grid, (1, 0)).to(z_t.dtype)
