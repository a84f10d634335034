"""Rehearsed fine-tuning: it learns, it goes back to the bit, and an edit with it resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import safegen
from safegen.editing import rehearsal
from safegen.editing.batches import BatchSource
from safegen.editing.latents import TripletLatents
from safegen.editing.memory import lean_layers
from safegen.editing.rehearsal import FURTHEST, Rehearsal
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.models.denoising import predict

SETTINGS = EditSettings.of(
    steps=7, unsafe_batch=2, warmup_steps=1, checkpoint_every=3,
    rehearsal_share=0.5, rehearsal_step_size=0.01,
)  # fmt: skip


def make(pipeline: Any, latents: TripletLatents, settings: EditSettings = SETTINGS) -> Rehearsal:
    return Rehearsal(pipeline.unet, BatchSource(pipeline, latents, settings), settings)


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in pipeline.unet.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_rehearsal_says_where_fine_tuning_leads_and_goes_back(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    tiny_pipeline.unet.requires_grad_(False)
    before = weights(tiny_pipeline)
    one, other = make(tiny_pipeline, tiny_latents), make(tiny_pipeline, tiny_latents)
    one.rehearse(40)
    assert same(weights(tiny_pipeline), before)
    assert not any(p.requires_grad for p in tiny_pipeline.unet.parameters())
    assert all(p.grad is None for p in tiny_pipeline.unet.parameters())
    assert one.movement.keys() == before.keys()
    assert all(bool(change.any()) for change in one.movement.values())
    other.rehearse(40)
    assert same(other.movement, one.movement)
    other.rehearse(80)
    assert not same(other.movement, one.movement)


def benign_loss(pipeline: Any, source: BatchSource) -> float:
    """The model's objective on benign pictures, over many draws."""
    total = 0.0
    for seed in range(20):
        batch = source.captioned(torch.Generator().manual_seed(seed))
        z_t, timesteps, texts = batch.by_text()
        with torch.no_grad():
            output = predict(pipeline.unet, z_t, timesteps, source.conditions.table[texts])
        total += float((output - batch.noise).square().mean())
    return total


def test_what_it_does_is_fine_tuning(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    source = BatchSource(tiny_pipeline, tiny_latents, SETTINGS)
    before = benign_loss(tiny_pipeline, source)
    rehearsed = make(tiny_pipeline, tiny_latents)
    rehearsed.rehearse(40)
    with torch.no_grad():
        for name, parameter in tiny_pipeline.unet.named_parameters():
            parameter.add_(rehearsed.movement[name])
    assert benign_loss(tiny_pipeline, source) < 0.99 * before


def test_a_share_of_the_steps_is_moved_on_the_way_there(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    rehearsed, before = make(tiny_pipeline, tiny_latents), weights(tiny_pipeline)
    with rehearsed.moved(3):
        assert same(weights(tiny_pipeline), before)  # nothing was rehearsed yet
    rehearsed.rehearse(40)
    name, change = next(iter(rehearsed.movement.items()))
    distances = []
    for step in range(40, 140):
        with rehearsed.moved(step):
            now = dict(tiny_pipeline.unet.named_parameters())[name].detach()
            distances.append(float((now - before[name]).norm() / change.norm()))
        assert same(weights(tiny_pipeline), before)
    moved = [distance for distance in distances if distance]
    assert 30 < len(moved) < 70
    assert 0.9 * FURTHEST < max(moved) < 1.01 * FURTHEST
    furthest = 40 + distances.index(max(moved))
    with pytest.raises(RuntimeError, match="stopped"), rehearsed.moved(furthest):
        raise RuntimeError("stopped")
    assert same(weights(tiny_pipeline), before)


def test_without_captions_it_takes_the_empty_prompt(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    bare = replace(tiny_latents, captions=())
    source = BatchSource(build_pipeline(), bare, SETTINGS)
    assert not source.captioned(torch.Generator().manual_seed(0)).rows.any()
    captioned = BatchSource(build_pipeline(), tiny_latents, SETTINGS)
    rows = captioned.captioned(torch.Generator().manual_seed(0)).rows
    assert set(rows.flatten().tolist()) <= set(captioned.conditions.caption_rows.tolist())


@pytest.mark.parametrize("rank", [None, 2])
def test_an_edit_with_rehearsals_resumes_to_the_same_bits(
    build_pipeline: Callable[..., Any],
    tiny_latents: TripletLatents,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: int | None,
) -> None:
    if rank is not None:
        pytest.importorskip("peft")
    monkeypatch.setattr(rehearsal, "EVERY", 2)
    monkeypatch.setattr(lean_layers, "SMALL", 0)  # convolutions are frozen, and trained meanwhile
    settings = SETTINGS.changed(lora_rank=rank)
    whole = safegen.edit(build_pipeline(), tiny_latents, settings)
    plain = safegen.edit(build_pipeline(), tiny_latents, settings.changed(rehearsal_share=0.0))
    steps = Edit(build_pipeline(), tiny_latents, settings, run_folder=tmp_path).run()
    for _ in range(5):  # the checkpoint is of step 3, the rehearsal in it of step 2
        next(steps)
    steps.close()
    resumed = safegen.edit(build_pipeline(), tiny_latents, settings, run_folder=tmp_path)
    assert same(resumed.differences, whole.differences)
    assert not same(plain.differences, whole.differences)
