"""Frozen weights in half precision while an edit trains, and as they were afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.run import edit
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.models.anatomy import self_attention_names

BF16 = EditSettings.of(steps=4, unsafe_batch=2, warmup_steps=1, precision="bf16")


def test_only_trained_weights_are_in_single_precision(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    running = Edit(tiny_pipeline, tiny_latents, BF16).run()
    next(running)
    trained = set(self_attention_names(tiny_pipeline.unet))
    for name, parameter in tiny_pipeline.unet.named_parameters():
        assert parameter.dtype == (torch.float32 if name in trained else torch.bfloat16)
        assert (parameter.grad is not None) <= (name in trained)


def test_frozen_weights_can_stay_in_single_precision(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    settings = BF16.changed(frozen_precision="fp32")
    running = Edit(tiny_pipeline, tiny_latents, settings).run()
    next(running)
    assert {p.dtype for p in tiny_pipeline.unet.parameters()} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_teaches_nearly_the_same(
    build_pipeline: Callable[..., Any],
    tiny_latents: TripletLatents,
    precision: Any,
    optimizer: Any,
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((3, *tiny_latents.unsafe.shape), generator=generator)
    latents = replace(tiny_latents, unsafe=drawn[0], censored=drawn[1], benign=drawn[2])

    def losses(precision: Any) -> list[float]:
        settings = BF16.changed(steps=8, precision=precision, optimizer=optimizer)
        records = list(Edit(build_pipeline(), latents, settings).run())
        return [loss for record in records for loss in (record.redirect, record.preserve)]

    assert losses(precision) == pytest.approx(losses("fp32"), rel=0.03, abs=2e-3)


def test_the_teacher_answers_in_the_precision_of_the_edit(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    first = next(Edit(tiny_pipeline, tiny_latents, BF16).run())
    assert first.preserve < 1e-10


def test_a_pipeline_that_is_given_up_cannot_be_used(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    kept = edit(build_pipeline(), tiny_latents, BF16)
    spent = build_pipeline()
    patch = edit(spent, tiny_latents, BF16, keep_pipeline=False)
    assert all(torch.equal(patch.differences[n], kept.differences[n]) for n in kept.differences)
    assert {p.device.type for p in spent.vae.parameters()} == {"meta"}
    assert {p.device.type for p in spent.text_encoder.parameters()} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError)):
        spent("a cat", num_inference_steps=1)
