"""Losses of both halves of a step, by the edit's settings."""

from __future__ import annotations

import torch

from safegen.editing.batches import Batch, BatchSource
from safegen.editing.objective import (
    bounded_weight,
    clean_latent_loss,
    guided_latent_loss,
    output_loss,
    paper_target,
)
from safegen.models.prediction import clean_latent, output_for, signal_and_noise


def half_losses(
    output: torch.Tensor, batch: Batch, source: BatchSource, redirecting: bool
) -> torch.Tensor:
    """Loss of each picture (B,) in a half.

    The exact losses are shares of the mean |z_u - z_c|^2, so they mean the same for any model.

    Args:
        output: the denoiser's output (B * V, C, H, W), picture by picture.
        batch: the half.
        source: the source of the batch.
        redirecting: true for the unsafe half (L_m), false for the benign one (L_p).
    """
    if source.settings.loss.objective == "paper":
        return _paper_losses(output, batch, source, redirecting)
    return _exact_losses(output, batch, source) / source.distance


def unsafe_distance(output: torch.Tensor, batch: Batch, source: BatchSource) -> torch.Tensor:
    """Distance (B * V,) of the clean-latent prediction from the unsafe pictures."""
    z_t, timesteps, _ = batch.by_text()
    a, s = signal_and_noise(source.scheduler, timesteps)
    unsafe = batch.clean.repeat_interleave(batch.rows.shape[1], 0)
    return clean_latent_loss(output, z_t, unsafe, a, s, source.kind, source.settings.loss.gamma)


def _exact_losses(output: torch.Tensor, batch: Batch, source: BatchSource) -> torch.Tensor:
    settings, kind = source.settings, source.kind
    z_t, timesteps, _ = batch.by_text()
    a, s = signal_and_noise(source.scheduler, timesteps)
    target = batch.target.flatten(0, 1)
    gamma = settings.loss.single_gamma or settings.loss.gamma
    single = clean_latent_loss(output, z_t, target, a, s, kind, gamma)
    single = single.view(batch.rows.shape).mean(dim=1)
    if settings.loss.guidance_scale == 1:
        return single
    seen = clean_latent(output, z_t, a, s, kind).view_as(batch.target)
    weight = bounded_weight(a, s, settings.loss.gamma)[:: batch.rows.shape[1]]
    joint = guided_latent_loss(seen, batch.target, weight, settings.loss.guidance_scale)
    return (single + settings.loss.guided_weight * joint) / (1 + settings.loss.guided_weight)


def _paper_losses(
    output: torch.Tensor, batch: Batch, source: BatchSource, redirecting: bool
) -> torch.Tensor:
    a, s = signal_and_noise(source.scheduler, batch.timesteps)
    target = batch.target[:, 0]
    if redirecting:
        wanted = paper_target(batch.clean, target, batch.noise, a, s, source.kind)
    else:
        wanted = output_for(target, batch.z_t, a, s, source.kind)
    return output_loss(output, wanted)
