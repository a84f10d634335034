"""Redirect loss on pairs that an edit is not trained on, by noise level."""

from __future__ import annotations

from typing import Any

import torch

from safegen.editing.batches import Batch, BatchSource
from safegen.editing.latents import HeldBack
from safegen.editing.losses import half_losses
from safegen.models.denoising import predict

PLACES = (0.2, 0.4, 0.6, 0.8)
"""Places in the noise schedule, from 0 (no noise) to 1."""


@torch.no_grad()
def redirect_left(denoiser: Any, source: BatchSource, pairs: HeldBack) -> dict[str, float]:
    """Compute the mean redirect loss at each of ``PLACES``, under texts drawn at random.

    Noise and texts are the same at each call, so that a difference is the weights'.

    Args:
        denoiser: the denoiser with the weights to tell of.
        source: source of the edit's batches.
        pairs: held-back pairs; without any, nothing is returned.
    """
    if not len(pairs.unsafe):
        return {}
    return {
        f"{place:g}": _mean(denoiser, source, source.held_back(pairs, place)) for place in PLACES
    }


def _mean(denoiser: Any, source: BatchSource, batch: Batch) -> float:
    """Mean loss of a batch, in parts of a step's size."""
    device = next(denoiser.parameters()).device
    losses = []
    for pictures in torch.split(torch.arange(len(batch.z_t)), source.settings.data.unsafe_batch):
        part = batch.chosen(pictures)
        z_t, timesteps, texts = part.by_text()
        condition = source.conditions.table[texts].to(device)
        output = predict(denoiser, z_t.to(device), timesteps.to(device), condition)
        losses.append(half_losses(output.float(), part.to(device), source, redirecting=True))
    return float(torch.cat(losses).mean())
