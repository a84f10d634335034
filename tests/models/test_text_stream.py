"""The text's stream of joint attention is held while the image side is edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import safegen
from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.settings import EditSettings, Mixture
from safegen.editing.text_stream import change
from safegen.models.conditioning import encode_prompts
from safegen.models.denoising import predict
from safegen.patches.patch import Patch

SETTINGS = EditSettings.of(
    steps=24,
    unsafe_batch=2,
    warmup_steps=1,
    ema_decay=0.5,
    preserve_weight=1.0,
    redirect_mixture=Mixture(empty=0.5, random=0.5),
)


@pytest.fixture(scope="module")
def pipeline(build_family: Callable[..., Any]) -> Any:
    return build_family("sd3")


@pytest.fixture(scope="module")
def latents(pipeline: Any, drawn_triplets: Any) -> TripletLatents:
    return encode_triplets(pipeline, drawn_triplets())


@torch.no_grad()
def _texts(pipeline: Any, latents: TripletLatents) -> torch.Tensor:
    """What the text's tokens are after the first block, on noised unsafe latents."""
    seen = []
    handle = pipeline.transformer.transformer_blocks[1].register_forward_pre_hook(
        lambda _, __, given: seen.append(given["encoder_hidden_states"]), with_kwargs=True
    )
    noise = torch.randn(latents.unsafe.shape, generator=torch.Generator().manual_seed(3))
    count = len(noise)
    texts = encode_prompts(pipeline, ["a cat"] * count)
    predict(
        pipeline.transformer, 0.5 * latents.unsafe + 0.5 * noise, torch.full((count,), 500), texts
    )
    handle.remove()
    return torch.cat(seen)


def _moved(pipeline: Any, latents: TripletLatents, patch: Patch) -> float:
    before = _texts(pipeline, latents)
    safegen.apply(pipeline, patch)
    after = _texts(pipeline, latents)
    safegen.remove(pipeline, patch)
    return float((after - before).pow(2).mean())


def test_the_stream_moves_less_when_it_is_held(pipeline: Any, latents: TripletLatents) -> None:
    free, held = (
        _moved(
            pipeline, latents, safegen.edit(pipeline, latents, SETTINGS.changed(preserve_text=w))
        )
        for w in (0.0, 20.0)
    )
    assert 0 < held < 0.7 * free


def test_recomputed_activations_give_the_same_edit(pipeline: Any, latents: TripletLatents) -> None:
    few = SETTINGS.changed(steps=2, preserve_text=20.0)
    plain, recomputed = (
        safegen.edit(pipeline, latents, few.changed(gradient_checkpointing=how)).differences
        for how in ("none", "full")
    )
    for name, difference in plain.items():
        torch.testing.assert_close(recomputed[name], difference, rtol=1e-3, atol=1e-6)


def test_a_unet_has_no_such_stream(build_family: Callable[..., Any], drawn_triplets: Any) -> None:
    pipeline = build_family("sd1")
    latents = encode_triplets(pipeline, drawn_triplets(2))
    patches = [
        safegen.edit(pipeline, latents, SETTINGS.changed(steps=2, preserve_text=weight))
        for weight in (0.0, 20.0)
    ]
    one, other = (patch.differences for patch in patches)
    assert all(torch.equal(other[name], difference) for name, difference in one.items())


def test_change_is_a_share_of_the_originals_squares() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(2, 3, 4, 5, 6))  # 3 blocks, 4 texts
    shares = [
        [np.sum((after[i, n] - before[i, n]) ** 2) / np.sum(before[i, n] ** 2) for i in range(3)]
        for n in range(4)
    ]
    found = change(*(list(torch.from_numpy(each).float()) for each in (after, before)))
    np.testing.assert_allclose(found, np.mean(shares, axis=1), rtol=1e-5)
