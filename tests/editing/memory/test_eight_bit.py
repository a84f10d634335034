"""Frozen matrices in 8 bits while an edit trains, and as they were afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.memory.borrowing import borrowed
from safegen.editing.memory.eight_bit import eight_bit_layers, quantised, shrink
from safegen.editing.memory.prediction import predict_memory
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.anatomy import self_attention_names
from safegen.models.conditioning import encode_prompts

SETTINGS = EditSettings.of(steps=4, unsafe_batch=2, warmup_steps=1, frozen_precision="int8")


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has none that is large."""
    monkeypatch.setattr("safegen.editing.memory.eight_bit.LARGE", 0)


def test_a_value_is_off_by_half_a_step_at_most() -> None:
    weight = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    values, scale = quantised(weight)
    assert values.dtype == torch.int8
    assert torch.equal(scale[:3, 0] * 127, weight[:3].abs().amax(dim=1))
    assert bool(((values * scale - weight).abs() <= scale / 2 + 1e-7).all())


def test_passes_are_those_of_the_rounded_matrix() -> None:
    generator = torch.Generator().manual_seed(1)
    layer = torch.nn.Linear(6, 4).requires_grad_(False)
    network = torch.nn.Sequential(layer)
    exact = layer.weight.clone()
    values, scale = quantised(exact)
    inputs = torch.randn(2, 3, 6, generator=generator, requires_grad=True)
    with borrowed(network) as weights:
        shrink(network, (), weights)
        assert layer.weight.nbytes == 6 * 4
        with eight_bit_layers(network):
            found = network(inputs)
            (gradient,) = torch.autograd.grad(found.square().sum(), inputs)
    expected = torch.nn.functional.linear(inputs, values * scale, layer.bias)
    (wanted,) = torch.autograd.grad(expected.square().sum(), inputs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)
    assert torch.equal(layer.weight, exact)


@pytest.mark.parametrize("rank", [None, 2])
def test_an_edit_learns_nearly_the_same_in_less_memory(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, rank: int | None
) -> None:
    def differences(settings: EditSettings) -> tuple[torch.Tensor, int]:
        pipeline = build_pipeline()
        before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
        trained = set(self_attention_names(pipeline.unet))
        run = Edit(pipeline, tiny_latents, settings.changed(lora_rank=rank))
        steps = run.run()
        next(steps)
        frozen = run.resident()["frozen"]
        kinds = {p.dtype for name, p in pipeline.unet.named_parameters() if name not in trained}
        assert (torch.int8 in kinds) == (settings is SETTINGS)
        list(steps)
        after = pipeline.unet.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        return torch.cat([each.flatten() for each in run.patch().differences.values()]), frozen

    (exact, whole), (rounded, less) = map(
        differences, (SETTINGS.changed(frozen_precision="fp32"), SETTINGS)
    )
    assert less < whole
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.9


def test_the_prediction_counts_them(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    text, latent = encode_prompts(tiny_pipeline, [""]), tiny_latents.unsafe.shape[1:]
    run = Edit(tiny_pipeline, tiny_latents, SETTINGS)
    steps = run.run()
    next(steps)
    predicted = predict_memory(tiny_pipeline.unet, text, latent, SETTINGS)
    assert predicted.frozen == run.resident()["frozen"]


def test_a_rehearsal_is_refused() -> None:
    with pytest.raises(SafegenError, match="give --frozen-precision fp32"):
        SETTINGS.changed(rehearsal_share=0.5)
