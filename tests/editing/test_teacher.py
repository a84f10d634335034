"""The original's answers in the middle of an edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.editing.adapters import trained_form
from safegen.editing.batches import BatchSource
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings
from safegen.editing.teacher import Teacher
from safegen.models.anatomy import scope_names
from safegen.models.denoising import predict
from safegen.models.prediction import clean_latent, signal_and_noise

SETTINGS = EditSettings.of(unsafe_batch=2)


@pytest.mark.parametrize("rank", [None, 3])
def test_answers_as_the_original_whatever_was_trained(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, rank: int | None
) -> None:
    if rank is not None:
        pytest.importorskip("peft")
    original, edited = build_pipeline().unet, build_pipeline()
    source = BatchSource(edited, tiny_latents, SETTINGS)
    trained = trained_form(edited.unet, scope_names(edited.unet, "self-attention"), rank, 0)
    for weight in trained.parameters.values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    moved = {name: weight.detach().clone() for name, weight in trained.parameters.items()}
    _, benign = source.halves(3, 0)

    def seen_by(denoiser: Any) -> torch.Tensor:
        z_t, timesteps, texts = benign.by_text()
        with torch.no_grad():
            output = predict(denoiser, z_t, timesteps, source.conditions.table[texts])
        a, s = signal_and_noise(source.scheduler, timesteps)
        return clean_latent(output, z_t, a, s, source.kind).view_as(benign.target)

    teacher = Teacher(edited.unet, trained, source)
    answered = teacher.answered(benign)
    torch.testing.assert_close(answered.target, seen_by(original), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(answered.target, seen_by(edited.unet), rtol=1e-2, atol=1e-2)
    assert all(torch.equal(weight, moved[name]) for name, weight in trained.parameters.items())
    assert torch.equal(answered.z_t, benign.z_t)


def test_each_step_asks_about_other_pictures(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    source = BatchSource(tiny_pipeline, tiny_latents, SETTINGS)
    noises = [source.halves(step, 0)[1].noise for step in range(3)]
    assert torch.equal(source.halves(1, 0)[1].noise, noises[1])
    assert not torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[1], noises[2])
