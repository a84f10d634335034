"""Memory by component: predicted from the configuration, and what a real step takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.memory.components import EditMemory
from safegen.editing.memory.prediction import AllocatedMemory, predict_memory
from safegen.editing.run import plan
from safegen.editing.settings import EditSettings, Mixture
from safegen.models.anatomy import self_attention_names
from safegen.models.conditioning import TextCondition
from safegen.models.shipped import FOLDER

BASE = EditSettings.of(steps=4, unsafe_batch=2, warmup_steps=1)
CALM = Mixture(empty=0.0, random=1.0)


def test_bytes_are_counted_while_they_are_alive() -> None:
    before = torch.ones(100)
    with AllocatedMemory() as seen:
        first = torch.zeros(1000)
        view, inside = first[10:], before.add_(1)
        assert seen.now == 4000
        second = first + 1
        assert seen.now == seen.peak == 8000
        del second, view, inside
        gc.collect()
        assert (seen.now, seen.peak) == (4000, 8000)
        small = torch.zeros(250, dtype=torch.float16)
    assert (seen.now, seen.peak) == (4500, 8000)
    del first, small
    gc.collect()
    assert seen.now == 0


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": "bf16"},
        {"precision": "bf16", "frozen_precision": "fp32"},
        {"gradient_checkpointing": "full"},
        {"precision": "bf16", "gradient_checkpointing": "selective"},
        {"redirect_mixture": CALM, "guidance_scale": 1.0},
        {"gradient_accumulation": 2, "benign_batch": 3},
        {"lora_rank": 2},
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "scope": "self-attention+output"},
        {"precision": "bf16", "scope": "self-attention+output"},
        {"rehearsal_share": 0.5},
    ],
    ids=str,
)
def test_the_prediction_is_what_is_measured(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, change: dict[str, Any]
) -> None:
    if "lora_rank" in change:
        pytest.importorskip("peft")
    settings = BASE.changed(**change)
    told = plan(build_pipeline(width=64), tiny_latents, settings)
    for part in ("frozen", "trained", "gradients", "optimizer", "average", "rehearsal"):
        assert getattr(told.predicted, part) == getattr(told.measured, part), part
    assert told.predicted.activations == pytest.approx(told.measured.activations, rel=0.05)
    assert told.predicted.total == pytest.approx(told.measured.total, rel=0.02)


def test_components_have_the_sizes_of_their_numbers(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    pipeline = build_pipeline()
    sizes = {name: p.numel() for name, p in pipeline.unet.named_parameters()}
    trained = sum(sizes[name] for name in self_attention_names(pipeline.unet))
    settings = BASE.changed(precision="bf16", optimizer="adamw")
    memory = plan(pipeline, tiny_latents, settings).measured
    assert memory.frozen == 2 * (sum(sizes.values()) - trained)
    assert memory.trained == memory.gradients == memory.average == 4 * trained
    assert memory.optimizer == 8 * trained


def test_cards() -> None:
    memory = EditMemory(4 * 2**30, 2**29, 0, 0, 0, 0, 2**30)
    assert memory.total == 4 * 2**30 + 2**29 + 2**30
    assert [memory.fits(card) for card in (6, 8, 12)] == [False, True, True]


def test_stable_diffusion_1_fits_a_card_of_8_gib() -> None:
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(FOLDER / "sd1" / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    text, latent = TextCondition(torch.zeros(1, 77, 768)), torch.Size((4, 64, 64))
    lean = EditSettings.of(
        precision="bf16", gradient_checkpointing="selective", unsafe_batch=2, benign_batch=2
    )
    memory = predict_memory(unet, text, latent, lean)
    assert 1.6e9 < memory.frozen < 1.7e9
    assert memory.fits(8)
    plain = lean.changed(gradient_checkpointing="none", precision="fp32")
    assert not predict_memory(unet, text, latent, plain).fits(8)
