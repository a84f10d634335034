"""What a step sees of the triplets, and what the model should make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from safegen.editing.batches import OVERSHOT, BatchSource
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings
from safegen.models.prediction import signal_and_noise

SETTINGS = EditSettings.of(steps=2, unsafe_batch=8, warmup_steps=1)


@pytest.mark.parametrize("overshoot", [0.3, 1.0])
def test_the_target_lies_as_far_past_the_censored_form_as_is_asked(
    tiny_pipeline: Any, tiny_latents: TripletLatents, overshoot: float
) -> None:
    sources = [
        BatchSource(tiny_pipeline, tiny_latents, SETTINGS.changed(overshoot=share))
        for share in (0.0, overshoot)
    ]
    (exact, benign), (past, same) = (source.halves(0, 0) for source in sources)
    assert torch.equal(exact.z_t, past.z_t)
    a, s = (
        each.view(-1, 1, 1, 1) for each in signal_and_noise(sources[0].scheduler, exact.timesteps)
    )
    seen = ((exact.z_t - s * exact.noise) / a)[:, None]
    expected = exact.target - overshoot * (seen - exact.target)
    torch.testing.assert_close(past.target, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(benign.target, same.target)


def test_half_of_the_unsafe_pictures_have_the_unsafe_in_their_noise_too(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    settings = SETTINGS.changed(
        unsafe_batch=256, unsafe_noise=4.0, cutmix=0.0, interpolation_range=(1.0, 1.0)
    )
    plain, leaning = (
        BatchSource(tiny_pipeline, tiny_latents, each).halves(0, 0)[0]
        for each in (settings.changed(unsafe_noise=0.0), settings)
    )
    unsafe = leaning.clean - leaning.target[:, 0]
    noise = leaning.noise.flatten(1)
    way = unsafe.flatten(1)
    share = (noise * way).sum(dim=1) / way.square().sum(dim=1)
    chance = (plain.noise.flatten(1) * way).sum(dim=1) / way.square().sum(dim=1)
    assert chance.mean().abs() < 0.1
    assert 0.8 < share.mean() < 1.2  # half of them 0, the others 2 in the mean
    levels = signal_and_noise(tiny_pipeline.scheduler, leaning.timesteps)
    a, s = (each.view(-1, 1, 1, 1) for each in levels)
    torch.testing.assert_close(leaning.z_t, a * leaning.clean + s * leaning.noise)


def test_the_unsafe_in_the_noise_is_overshot_too(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    settings = SETTINGS.changed(
        unsafe_batch=256, unsafe_noise=4.0, cutmix=0.0, interpolation_range=(1.0, 1.0)
    )
    exact, past = (
        BatchSource(tiny_pipeline, tiny_latents, settings.changed(overshoot=share)).halves(0, 0)[0]
        for share in (0.0, 0.5)
    )
    assert torch.equal(exact.z_t, past.z_t)
    unsafe = (exact.clean - exact.target[:, 0]).flatten(1)
    overshot = (exact.target - past.target)[:, 0].flatten(1) / 0.5
    times = (overshot * unsafe).sum(dim=1) / unsafe.square().sum(dim=1)
    torch.testing.assert_close(overshot, times[:, None] * unsafe, rtol=1e-3, atol=1e-4)
    assert times.min() > 0.99
    assert 0.3 < (times < 1.001).float().mean() < 0.7  # those with plain noise
    assert 2 < times.max() <= 1 + OVERSHOT * 4 + 1e-3
