"""Redirect loss on held-back pairs: against its formula, and the same at each call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from safegen.editing.batches import BatchSource
from safegen.editing.latents import HeldBack, TripletLatents
from safegen.editing.redirect_left import PLACES, redirect_left
from safegen.editing.settings import EditSettings
from safegen.models.denoising import predict
from safegen.models.prediction import signal_and_noise

SETTINGS = EditSettings.of(unsafe_batch=2, guidance_scale=1.0)


def test_it_is_the_distance_of_the_prediction_from_the_censored_form(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    source = BatchSource(tiny_pipeline, tiny_latents, SETTINGS)
    pairs = HeldBack(tiny_latents.unsafe[:3], tiny_latents.censored[:3])
    found = redirect_left(tiny_pipeline.unet, source, pairs)
    assert list(found) == [f"{place:g}" for place in PLACES]
    batch = source.held_back(pairs, PLACES[1])
    a, s = (x.view(-1, 1, 1, 1) for x in signal_and_noise(source.scheduler, batch.timesteps))
    texts = source.conditions.table[batch.rows[:, 0]]
    with torch.no_grad():
        noise = predict(tiny_pipeline.unet, batch.z_t, batch.timesteps, texts)
    error = (batch.z_t - s * noise) / a - pairs.censored
    by_hand = ((a / s).clamp(max=1) * error.square()).mean() / source.distance
    assert found[f"{PLACES[1]:g}"] == pytest.approx(float(by_hand), rel=1e-4)


def test_it_draws_the_same_at_each_call_and_nothing_from_training(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    source = BatchSource(tiny_pipeline, tiny_latents, EditSettings.of(unsafe_batch=2))
    pairs = HeldBack(tiny_latents.unsafe[:3], tiny_latents.censored[:3])
    before = source.halves(1, 0)[0].z_t
    found = [redirect_left(tiny_pipeline.unet, source, pairs) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(before, source.halves(1, 0)[0].z_t)
    assert redirect_left(tiny_pipeline.unet, source, HeldBack(before[:0], before[:0])) == {}
