"""The lab's joint-attention transformer, trained as a rectified flow (arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from safegen.lab.build.clip import WIDTH
from safegen.lab.build.network_settings import NetworkSettings
from safegen.lab.build.training import Average, Progress, Schedule, train
from safegen.models.merging import merge_zero_tokens

LAYERS, HEADS, HEAD_WIDTH = 6, 3, 64
MISSING = 256
"""Tokens of zeros that the pipeline puts in the place of T5's."""


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Make the noise schedule; pictures this small need no shift."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def new_transformer() -> SD3Transformer2DModel:
    """Make 6 joint blocks of width 192 on 64 image tokens, the first half with ``attn2``.

    Each block begins as the identity, and the output as zero (adaLN-Zero, arXiv 2212.09748).
    """
    width = HEADS * HEAD_WIDTH
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        dual_attention_layers=tuple(range(LAYERS // 2)),
        qk_norm="rms_norm",
    )
    norms = [block.norm1.linear for block in transformer.transformer_blocks]
    norms += [block.norm1_context.linear for block in transformer.transformer_blocks]
    for layer in (*norms, transformer.norm_out.linear, transformer.proj_out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return transformer


def train_transformer(
    transformer: SD3Transformer2DModel,
    latents: torch.Tensor,
    hidden: torch.Tensor,
    pooled: torch.Tensor,
    settings: NetworkSettings,
    checkpoint: Path,
    average: Average,
) -> Iterator[Progress]:
    """Train on |v - (n - z_0)|^2 at z_t = (1 - t) z_0 + t n, with t logit-normal (eq. 19).

    Args:
        transformer: the network of ``new_transformer``.
        latents: clean latents (N, 4, 16, 16).
        hidden: hidden states of the texts, of one encoder (N + 1, L, D); the first text is empty.
        pooled: their pooled features (N + 1, D).
        settings: lengths, rates and seed.
        checkpoint: file to resume from.
        average: moving average of the weights.
    """
    merge_zero_tokens(transformer)
    count, schedule = settings.batch, _schedule(settings)

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(latents), (count,), generator=generator)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randn(count, generator=generator).sigmoid()
        kept = torch.rand(count, generator=generator) >= settings.caption_dropout
        texts = torch.where(kept, rows + 1, 0)
        predicted = transformer(
            hidden_states=torch.lerp(clean, noise, t.view(-1, 1, 1, 1)),
            timestep=1000 * t,
            encoder_hidden_states=as_pipeline(hidden[texts].float()),
            pooled_projections=pooled[texts].float().repeat(1, 2),
        ).sample
        loss: torch.Tensor = (predicted - (noise - clean)).pow(2).mean()
        return loss

    return train(transformer, step_loss, schedule, checkpoint, settings.seed, average)


def as_pipeline(hidden: torch.Tensor) -> torch.Tensor:
    """Turn one encoder's hidden states (B, L, D) into those of a pipeline whose two CLIP encoders
    are this one, and that has no T5: (B, L + 256, 2 D)."""
    return torch.nn.functional.pad(hidden.repeat(1, 1, 2), (0, 0, 0, MISSING))


def _schedule(settings: NetworkSettings) -> Schedule:
    return Schedule(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        batch=settings.batch,
        warmup=min(200, settings.steps // 10),
        decay=0.4,
        checkpoint_every=100,
        muon=True,
    )
