"""The frozen original as a teacher: what it makes of a benign picture is to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from safegen.editing.batches import Batch, BatchSource
from safegen.editing.memory.precision import autocast
from safegen.models.denoising import predict
from safegen.models.moving import exchanged
from safegen.models.onednn import onednn_layers
from safegen.models.prediction import clean_latent, signal_and_noise


class Teacher:
    """The edited denoiser with its original weights, asked about each batch anew.

    Every step has new pictures, noise and texts, since an edit that sees a fixed set of answers
    learns that set by heart and drifts beside it.

    Args:
        denoiser: the edited denoiser.
        weights: its trained weights by name.
        originals: values of (some of) them at which the denoiser is the original.
        source: source of the batches.
    """

    def __init__(
        self,
        denoiser: Any,
        weights: Mapping[str, torch.Tensor],
        originals: Mapping[str, torch.Tensor],
        source: BatchSource,
    ) -> None:
        self._denoiser = denoiser
        self._weights = weights
        self._originals = originals
        self._source = source

    @torch.no_grad()
    def answered(self, batch: Batch) -> Batch:
        """Take the original's clean-latent predictions as the batch's targets."""
        source = self._source
        z_t, timesteps, texts = batch.by_text()
        condition = source.conditions.table[texts.cpu()].to(z_t.device)
        with (
            exchanged(self._weights, self._originals),
            onednn_layers([self._denoiser]),
            autocast(source.settings, z_t.device),
        ):
            output = predict(self._denoiser, z_t, timesteps, condition)
        a, s = signal_and_noise(source.scheduler, timesteps)
        return replace(
            batch, target=clean_latent(output, z_t, a, s, source.kind).view_as(batch.target)
        )
