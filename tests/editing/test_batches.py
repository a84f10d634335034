"""What a step sees of the triplets, and what the model should make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from safegen.editing.batches import BatchSource
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings
from safegen.models.prediction import signal_and_noise

SETTINGS = EditSettings(steps=2, batch=8, pool=16, warmup=1)


@pytest.mark.parametrize("overshoot", [0.3, 1.0])
def test_the_target_lies_as_far_past_the_censored_form_as_is_asked(
    tiny_pipeline: Any, tiny_latents: TripletLatents, overshoot: float
) -> None:
    sources = [
        BatchSource(tiny_pipeline, tiny_latents, replace(SETTINGS, overshoot=share))
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
