"""The frozen original as a teacher: what it makes of a benign picture is to stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from safegen.editing.adapters import Trained, as_original
from safegen.editing.batches import Batch, BatchSource
from safegen.editing.memory.precision import autocast
from safegen.models.denoising import predict
from safegen.models.onednn import onednn_layers
from safegen.models.prediction import clean_latent, signal_and_noise


class Teacher:
    """The edited denoiser with its original weights, asked about each batch anew.

    Every step has new pictures, noise and texts, since an edit that sees a fixed set of answers
    learns that set by heart and drifts beside it.

    Args:
        denoiser: the edited denoiser.
        trained: its trained weights.
        source: source of the batches.
    """

    def __init__(self, denoiser: Any, trained: Trained, source: BatchSource) -> None:
        self._denoiser = denoiser
        self._trained = trained
        self._source = source

    @torch.no_grad()
    def answered(self, batch: Batch) -> Batch:
        """Take the original's clean-latent predictions as the batch's targets."""
        source = self._source
        z_t, timesteps, texts = batch.by_text()
        condition = source.conditions.table[texts.cpu()].to(z_t.device)
        with (
            as_original(self._trained),
            onednn_layers([self._denoiser]),
            autocast(source.settings, z_t.device),
        ):
            output = predict(self._denoiser, z_t, timesteps, condition)
        a, s = signal_and_noise(source.scheduler, timesteps)
        return replace(
            batch, target=clean_latent(output, z_t, a, s, source.kind).view_as(batch.target)
        )
