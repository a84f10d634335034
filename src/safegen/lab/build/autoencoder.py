"""Autoencoder of the lab: 64 x 64 x 3 pictures to 16 x 16 x 4 latents and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from safegen.lab.build.scenes import SceneArrays
from safegen.lab.build.training import Average, Progress, Schedule, fast_products, train

KL_WEIGHT = 5e-4
CROP = 32
FULL_SIZE_SHARE = 0.15
"""Share of the training on whole pictures, at its end; before, on crops at a quarter the cost."""


def new_autoencoder() -> AutoencoderKL:
    """Make a factor-4 AutoencoderKL with (32, 64, 96) channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def train_autoencoder(
    model: AutoencoderKL,
    scenes: SceneArrays,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
    average: Average,
) -> Iterator[Progress]:
    """Train on pixels and their differences (for crisp edges) with a light KL term."""

    def step_loss(step: int, generator: torch.Generator) -> torch.Tensor:
        whole = step >= schedule.steps * (1 - FULL_SIZE_SHARE)
        count = schedule.batch if whole else schedule.batch * 4
        pixels = scenes.pixels(torch.randint(len(scenes), (count,), generator=generator))
        if not whole:
            left, top = (int(v) for v in torch.randint(64 - CROP + 1, (2,), generator=generator))
            pixels = pixels[..., top : top + CROP, left : left + CROP]
        decoded, posterior = _through(model, pixels, generator)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        loss: torch.Tensor = _reconstruction_loss(decoded, pixels) + KL_WEIGHT * kl
        return loss

    return train(model, step_loss, schedule, checkpoint, seed, average)


def refine_decoder(
    model: AutoencoderKL,
    scenes: SceneArrays,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
    average: Average,
) -> Iterator[Progress]:
    """Train the decoder on whole pictures; the encoder, and so every latent, stays the same."""
    for frozen in (model.encoder, model.quant_conv):
        frozen.requires_grad_(False)

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        pixels = scenes.pixels(torch.randint(len(scenes), (schedule.batch,), generator=generator))
        decoded, _ = _through(model, pixels, generator)
        return _reconstruction_loss(decoded, pixels)

    return train(model, step_loss, schedule, checkpoint, seed, average)


def _through(
    model: AutoencoderKL, pixels: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, Any]:
    """Encode and decode pictures; returns the decoded draws (float32) and the posterior."""
    with fast_products():
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample
    return decoded.float(), posterior


def _reconstruction_loss(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    error = decoded - pixels
    across = error[..., :, 1:] - error[..., :, :-1]
    down = error[..., 1:, :] - error[..., :-1, :]
    differences = across.abs().mean() + down.abs().mean()
    loss: torch.Tensor = error.abs().mean() + error.pow(2).mean() + 0.5 * differences
    return loss


@torch.no_grad()
def measure_scaling_factor(model: AutoencoderKL, scenes: SceneArrays, count: int = 512) -> float:
    """Compute 1 / standard deviation of the latents, which gives diffusion unit variance."""
    latents = model.encode(scenes.pixels(torch.arange(min(count, len(scenes))))).latent_dist.mean
    return 1.0 / float(latents.std())


@torch.no_grad()
def encode(model: AutoencoderKL, scenes: SceneArrays, count: int, batch: int = 128) -> torch.Tensor:
    """Compute scaled posterior means of the first scenes, (count, 4, 16, 16) in half precision."""
    parts = []
    for indices in torch.split(torch.arange(count), batch):
        with fast_products():
            mean = model.encode(scenes.pixels(indices)).latent_dist.mean
        parts.append((mean.float() * model.config.scaling_factor).half())
    return torch.cat(parts)
