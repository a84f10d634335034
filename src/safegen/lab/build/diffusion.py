"""UNets of the lab, trained on latents and text embeddings that are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPModel

from safegen.lab.build.clip import WIDTH
from safegen.lab.build.training import Average, Progress, Schedule, fast_products, train
from safegen.models.prediction import prediction_of

CAPTION_DROPOUT = 0.1
MIN_SNR_GAMMA = 5.0


def new_scheduler(**further: Any) -> DDIMScheduler:
    """Make the noise schedule of Stable Diffusion 1.x, with ``further`` settings."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **{"prediction_type": "epsilon", **further},
    )


def twin_scheduler() -> DDIMScheduler:
    """Make the same schedule with velocities as predictions and no signal at its end (arXiv
    2305.08891)."""
    return new_scheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


def new_unet() -> UNet2DConditionModel:
    """Make a UNet of 3 cross-attention levels, (48, 96, 160) channels, on 16 x 16 x 4 latents."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 160),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 2, 4),
        norm_num_groups=16,
    )


@torch.no_grad()
def embed_texts(model: CLIPModel, tokens: torch.Tensor, batch: int = 512) -> torch.Tensor:
    """Compute the text encoder's hidden states, (N, 32, 128) in half precision."""
    parts = [
        model.text_model(input_ids=tokens[start : start + batch]).last_hidden_state.half()
        for start in range(0, len(tokens), batch)
    ]
    return torch.cat(parts)


def train_unet(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    empty: torch.Tensor,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
    average: Average,
    scheduler: DDIMScheduler | None = None,
    caption_dropout: float = CAPTION_DROPOUT,
) -> Iterator[Progress]:
    """Train a UNet with caption dropout on what its scheduler says that it predicts.

    Timesteps of noise prediction are drawn as often as min-SNR weighs them (arXiv 2303.09556),
    which has the same expected gradient as weighting uniform draws, and less variance; those of
    velocities are uniform.

    Args:
        unet: the UNet.
        latents: clean latents (N, 4, 16, 16).
        embeddings: text embeddings (N, 32, 128).
        empty: embedding of the empty text (32, 128).
        schedule: steps, learning rate and batch.
        checkpoint: file to resume from.
        seed: seed of every draw.
        average: moving average of the weights.
        scheduler: noise schedule; the lab's if None.
        caption_dropout: share of the captions that are empty.
    """
    scheduler = scheduler or new_scheduler()
    alphas, kind = scheduler.alphas_cumprod, prediction_of(scheduler)
    weights = torch.ones_like(alphas)
    if kind == "epsilon":
        signal_to_noise = alphas / (1 - alphas)
        weights = signal_to_noise.clamp(max=MIN_SNR_GAMMA) / signal_to_noise
    batch = schedule.batch

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        indices = torch.randint(len(latents), (batch,), generator=generator)
        timesteps = torch.multinomial(weights, batch, replacement=True, generator=generator)
        clean = latents[indices].float()
        noise = torch.randn(clean.shape, generator=generator)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        noised = a * clean + s * noise
        condition = embeddings[indices].float()
        dropped = torch.rand(batch, generator=generator) < caption_dropout
        condition[dropped] = empty
        with fast_products():
            predicted = unet(noised, timesteps, condition).sample
        wanted = noise if kind == "epsilon" else a * noise - s * clean
        loss: torch.Tensor = (predicted.float() - wanted).pow(2).mean()
        return loss

    return train(unet, step_loss, schedule, checkpoint, seed, average)
