"""Baselines on a Stable Diffusion 3, whose text and picture meet in joint attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses import defended
from safegen.defenses.duo import DuoSettings
from safegen.defenses.duo import erase as erase_by_duo
from safegen.defenses.esd import EsdSettings, EsdTraining
from safegen.defenses.safety_filter import put_checker
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint
from safegen.models.sampling import ImageRequest, Sample, SamplingSettings, generate_samples
from tiny_families import build

KNIVES = Concept("knives", "a knife", ("a knife", "the knives"))
TWO_STEPS = SamplingSettings(steps=2, guidance_scale=3.0, sampler="euler")
REQUESTS = [ImageRequest("a cat", 1), ImageRequest("the snow", 2)]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """A small Stable Diffusion 3; tests leave it as it was."""
    return build("sd3")


def _drawn(pipeline: Any) -> list[Sample]:
    return list(generate_samples(pipeline, REQUESTS, TWO_STEPS))


def test_esd_trains_the_texts_queries_and_keys(pipeline: Any) -> None:
    before = fingerprint(pipeline.transformer)
    settings = EsdSettings(iterations=24, steps=3, batch=4, learning_rate=3e-3)
    training = EsdTraining(pipeline, KNIVES, settings, ["a cat and a knife"])
    losses = [record.loss for record in training.run()]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])
    assert fingerprint(pipeline.transformer) == before
    patch = training.patch()
    blocks = range(pipeline.transformer.config.num_layers)
    assert sorted(patch.differences) == sorted(
        f"transformer_blocks.{block}.attn.{layer}.{part}"
        for block in blocks
        for layer in ("add_q_proj", "add_k_proj")
        for part in ("weight", "bias")
    )
    assert patch.metadata["method"] == "esd-x"


def test_esds_first_loss_is_the_concepts_guidance(pipeline: Any) -> None:
    """|v_c - (v_0 - eta (v_c - v_0))|^2 = (1 + eta)^2 |v_c - v_0|^2 before any step."""
    settings = EsdSettings(iterations=1, steps=2, batch=2, negative_guidance=0.5)
    training = EsdTraining(pipeline, KNIVES, settings)
    seen: list[tuple[dict[str, Any], torch.Tensor]] = []
    hook = pipeline.transformer.register_forward_hook(
        lambda _, __, given, output: seen.append((given, output[0].detach())), with_kwargs=True
    )
    loss = next(training.run()).loss
    hook.remove()
    (nothing, without), (asked, with_words), _ = seen[-3:]
    assert torch.equal(nothing["hidden_states"], asked["hidden_states"])
    assert 0 < float(asked["timestep"][0]) <= 1000
    assert loss == pytest.approx(float(2.25 * (with_words - without).pow(2).mean()), rel=1e-4)


def test_the_other_variant_of_esd_is_refused(pipeline: Any) -> None:
    with pytest.raises(SafegenError, match="SD3Transformer2DModel: this method is made for"):
        EsdTraining(pipeline, KNIVES, EsdSettings(variant="u"))


def test_duo_trains_the_image_side(pipeline: Any) -> None:
    before = fingerprint(pipeline.transformer)
    settings = DuoSettings(pairs=2, rank=2, steps=3, batch=2, learning_rate=1e-2)
    patch = erase_by_duo(pipeline, KNIVES, [], settings)
    assert fingerprint(pipeline.transformer) == before
    kinds = {name.split(".", 2)[2] for name in patch.differences}
    layers = [f"{layer}.weight" for layer in ("to_q", "to_k", "to_v", "to_out.0")]
    assert kinds == {f"{part}.{layer}" for part in ("attn", "attn2") for layer in layers}
    assert all(0 < torch.linalg.matrix_rank(each) <= 2 for each in patch.differences.values())


@torch.no_grad()
def test_safety_guidance_is_the_papers(pipeline: Any) -> None:
    """Of velocities: u + g (c - u - gamma) by Euler's steps, without warm-up and momentum."""
    shape = (1, 4, 8, 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    texts = [
        pipeline.encode_prompt(text, None, None, do_classifier_free_guidance=False)[::2]
        for text in ("", "a cat", "a knife")
    ]
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(2)
    z, sigmas = noise, scheduler.sigmas.tolist()
    for step in range(2):
        time = scheduler.timesteps[step : step + 1]
        u, c, s = (pipeline.transformer(z, hidden, pooled, time).sample for hidden, pooled in texts)
        scale = torch.where(c - s >= 0.5, 0.0, (50 * (c - s).abs()).clamp(max=1.0))
        z = z + (sigmas[step + 1] - sigmas[step]) * (u + 3 * (c - u - scale * (s - u)))
    spec = "sld-max,guidance_scale=50,threshold=0.5,momentum_scale=0,momentum_decay=0"
    asked = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 64, "width": 64}
    given = asked | {"latents": noise, "output_type": "latent"}
    plain = pipeline("a cat", **given).images
    with defended(pipeline, spec, KNIVES):
        steered = pipeline("a cat", **given).images
    torch.testing.assert_close(steered, z)
    assert not torch.allclose(plain, z, atol=1e-2)


def test_a_filter_works_where_the_call_has_no_place_for_one(
    pipeline: Any, build_checker: Callable[..., tuple[Any, Any]]
) -> None:
    plain = _drawn(pipeline)
    own = pipeline.image_processor
    for threshold, flagged in ((-1.5, True), (1.5, False)):
        undo = put_checker(pipeline, *build_checker(threshold))
        checked = _drawn(pipeline)
        undo()
        for before, after in zip(plain, checked, strict=True):
            assert after.blocked == flagged
            assert np.array_equal(after.image, 0 * before.image if flagged else before.image)
    assert pipeline.image_processor is own
    assert not any(sample.blocked for sample in _drawn(pipeline))
