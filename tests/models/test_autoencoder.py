"""Latents are what each pipeline's own code makes of a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.models.autoencoder import encode_pixels


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two pictures of 64 x 64 pixels."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("family", ["qwen-image", "wan"])
@torch.no_grad()
def test_a_picture_is_a_video_of_one_frame(
    build_family: Callable[..., Any], family: str, pixels: torch.Tensor
) -> None:
    vae = build_family(family).vae
    found = encode_pixels(vae, pixels)
    assert found.shape == (2, 4, 8, 8)
    means = vae.encode(pixels[:, :, None]).latent_dist.mode()
    for channel in range(4):  # the pipelines' scaling, backwards
        mean, std = vae.config.latents_mean[channel], vae.config.latents_std[channel]
        torch.testing.assert_close(found[:, channel] * std + mean, means[:, channel, 0])


@torch.no_grad()
def test_latents_of_flux2_are_normalised_by_patches(
    build_family: Callable[..., Any], pixels: torch.Tensor
) -> None:
    pipeline = build_family("flux2")
    theirs = pipeline._unpatchify_latents(pipeline._encode_vae_image(pixels, None))
    torch.testing.assert_close(encode_pixels(pipeline.vae, pixels), theirs)


@torch.no_grad()
def test_means_and_a_factor_go_together(
    build_family: Callable[..., Any], pixels: torch.Tensor
) -> None:
    """As in fine-tunes of SDXL whose latents are normalised."""
    vae = build_family("sdxl").vae
    plain = encode_pixels(vae, pixels) / vae.config.scaling_factor
    vae.register_to_config(latents_mean=[1.0] * 4, latents_std=[2.0] * 4, scaling_factor=0.5)
    torch.testing.assert_close(encode_pixels(vae, pixels), (plain - 1.0) / 2.0 * 0.5)
