"""DUO against its paper's loss, computed from merged weights, and what it changes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses.duo import (
    DuoSettings,
    DuoTraining,
    Pairs,
    draw_pairs,
    erase,
    preference_loss,
)
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.models.autoencoder import encode_pixels
from safegen.models.factors import low_rank
from safegen.models.moving import none_trained
from safegen.models.sampling import SamplingSettings, sampler_for
from safegen.seeds import sample_seed

KNIVES = Concept("knives", "a knife", ("knife", "a knife"))
FEW = DuoSettings(pairs=3, rank=2, steps=3, batch=2, learning_rate=1e-2, preserve=0.3, beta=20.0)


def latents(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


PAIRS = Pairs(latents(3, 0), latents(3, 1))


def expected_loss(pipeline: Any, merged: Any, settings: DuoSettings) -> float:
    """The released code's loss, with diffusers' schedule and the draws of the training."""
    draw = torch.Generator().manual_seed(sample_seed("duo", base=settings.seed))
    rows = torch.randint(3, (settings.batch,), generator=draw)
    clean = torch.cat([PAIRS.unsafe[rows], PAIRS.safe[rows]])
    noise = torch.randn(settings.batch, 4, 8, 8, generator=draw)
    times = (torch.rand(2 * settings.batch, generator=draw) * 1000).long()
    scheduler, both = pipeline.scheduler, noise.repeat(2, 1, 1, 1)
    z_t = scheduler.add_noise(clean, both, times)
    kind = scheduler.config.prediction_type
    wanted = both if kind == "epsilon" else scheduler.get_velocity(clean, both, times)
    tokens = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    empty = pipeline.text_encoder(tokens)[0]

    def errors(unet: Any) -> np.ndarray:
        output = unet(z_t, times, empty.expand(len(z_t), -1, -1)).sample
        found: np.ndarray = (output - wanted).double().pow(2).mean(dim=(1, 2, 3)).numpy()
        return found

    def top(unet: Any) -> torch.Tensor:
        last = torch.full((settings.batch,), 999)
        found: torch.Tensor = unet(noise, last, empty.expand(settings.batch, -1, -1)).sample
        return found.double()

    change = errors(merged) - errors(pipeline.unet)
    unsafe, safe = change[: settings.batch], change[settings.batch :]
    likelihood = 1 / (1 + np.exp(settings.beta * (safe - unsafe)))
    kept = float((top(merged) - top(pipeline.unet)).pow(2).mean())
    return float(-np.log(likelihood).mean()) + settings.preserve * kept


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_papers(build_pipeline: Callable[..., Any], prediction: str) -> None:
    pipeline = build_pipeline(prediction_type=prediction)
    merged = deepcopy(pipeline.unet)
    with (
        low_rank(pipeline.unet, 2, 0, self_attention_names(pipeline.unet)) as factors,
        torch.no_grad(),
    ):
        for _, b in factors.pairs.values():
            b += 0.2 * torch.randn(b.shape, generator=torch.Generator().manual_seed(3))
        for name, change in factors.changes().items():
            merged.get_parameter(name).add_(change)
        loss = float(DuoTraining(pipeline, factors, PAIRS, FEW).loss())
    with torch.no_grad():
        expected = expected_loss(pipeline, merged, FEW)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert abs(loss - np.log(2)) > 1e-3


def test_the_preference_is_for_lower_errors_on_the_safe_picture() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    assert float(preference_loss(zero, zero, zero, zero, 5.0)) == pytest.approx(np.log(2))
    better = preference_loss(one, zero, zero, one, 5.0)
    worse = preference_loss(zero, one, one, zero, 5.0)
    assert float(better) < 1e-3 < 9 < float(worse)


def test_training_moves_the_model_towards_the_safe_pictures(tiny_pipeline: Any) -> None:
    settings = replace(FEW, preserve=0.0)
    unet = tiny_pipeline.unet
    with none_trained(unet), low_rank(unet, 2, 0, self_attention_names(unet)) as factors:
        training = DuoTraining(tiny_pipeline, factors, PAIRS, settings)
        for number in range(12):
            training.step(number)
        afresh = DuoTraining(tiny_pipeline, factors, PAIRS, replace(settings, batch=16))
        with torch.no_grad():
            assert float(afresh.loss()) < np.log(2) - 0.01
        assert all(each.grad is None for each in unet.parameters())


def test_the_patch_holds_self_attention_alone_and_the_pipeline_stays(tiny_pipeline: Any) -> None:
    before = fingerprint(tiny_pipeline.unet)
    told: list[tuple[int, int]] = []
    patch = erase(tiny_pipeline, KNIVES, [], FEW, lambda done, of: told.append((done, of)))
    assert fingerprint(tiny_pipeline.unet) == before
    assert not tiny_pipeline.unet.conv_in._forward_hooks
    assert all(each.requires_grad for each in tiny_pipeline.unet.parameters())
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(".attn1.to_" in name for name in patch.differences)
    for change in patch.differences.values():
        assert 0 < torch.linalg.matrix_rank(change) <= 2
    assert patch.metadata["method"] == "duo"
    assert patch.metadata["settings"]["words"] == ["knife", "a knife"]


def test_safe_pictures_are_what_diffusers_img2img_makes_of_the_unsafe_ones(
    tiny_pipeline: Any,
) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    pairs = draw_pairs(tiny_pipeline, ["a knife"], "a cat", replace(FEW, pairs=2, strength=0.4))
    sampling = SamplingSettings()
    parts = {**tiny_pipeline.components, "feature_extractor": None}
    parts["scheduler"] = sampler_for(tiny_pipeline.scheduler, sampling.sampler)
    again = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    seeds = [sample_seed("duo", number, FEW.seed) for number in range(2)]
    images = again(
        ["", ""],
        image=pairs.unsafe,
        strength=0.4,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        negative_prompt=["a cat"] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    pixels = torch.from_numpy((images * 255).round() / 127.5 - 1).permute(0, 3, 1, 2)
    expected = encode_pixels(tiny_pipeline.vae, pixels)
    torch.testing.assert_close(pairs.safe, expected, atol=1e-3, rtol=0)
    assert (pairs.safe - pairs.unsafe).abs().max() > 1e-2


def test_what_it_cannot_do_is_refused(tiny_pipeline: Any) -> None:
    for wrong, message in (
        ({"pairs": 0}, "DUO: pairs must be a whole number of at least 1"),
        ({"strength": 0.0}, "strength must be a finite number above 0"),
        ({"beta": 0.0}, "beta must be a finite number above 0"),
        ({"preserve": -1.0}, "preserve must be a finite number of at least 0"),
    ):
        with pytest.raises(SafegenError, match=message):
            DuoSettings(**wrong)  # type: ignore[arg-type]
    tiny_pipeline.to(torch.bfloat16)
    with pytest.raises(SafegenError, match="trains in float32"):
        erase(tiny_pipeline, KNIVES, [], FEW)
