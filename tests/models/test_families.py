"""Every family of real models goes the whole way: edit, patch, apply, remove, generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import safegen
from safegen.editing.batches import Batch, BatchSource
from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.losses import half_losses
from safegen.editing.memory.prediction import predict_memory
from safegen.editing.objective import clean_latent_loss
from safegen.editing.settings import EditSettings, Mixture
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, model_size, scope_names, self_attention_names
from safegen.models.conditioning import encode_prompts
from safegen.models.denoising import predict
from safegen.models.prediction import (
    Prediction,
    add_noise,
    output_for,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)
from safegen.models.sampling import ImageRequest, SamplingSettings
from safegen.patches.lora import save_lora
from safegen.patches.low_rank import LowRankPatch
from safegen.patches.patch import Patch

MIXED = Mixture(empty=0.4, random=0.2, caption=0.2, adversarial=0.2)
SETTINGS = EditSettings.of(
    steps=16,
    unsafe_batch=4,
    warmup_steps=1,
    preserve_weight=0.1,
    ema_decay=0.9,
    redirect_mixture=MIXED,
    interpolation_range=(1.0, 1.0),
)
REQUESTS = [ImageRequest("a cat", 1), ImageRequest("the snow", 2)]


class Edited(NamedTuple):
    """A pipeline, its latents, its weights before the edit, and what came of the edit."""

    pipeline: Any
    latents: TripletLatents
    before: dict[str, torch.Tensor]
    redirect: list[float]
    patch: Patch

    @property
    def kind(self) -> Prediction:
        return prediction_of(self.pipeline.scheduler)


def _weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in denoiser_of(pipeline).state_dict().items()}


def _pictures(pipeline: Any, sampler: str = "ddim", batch: int = 2) -> list[np.ndarray]:
    settings = SamplingSettings(steps=2, guidance_scale=3.0, sampler=sampler)
    return [image for _, image in safegen.generate(pipeline, REQUESTS, settings, batch)]


@pytest.fixture(scope="module")
def edited(family: str, build_family: Callable[..., Any], drawn_triplets: Any) -> Edited:
    pipeline = build_family(family)
    latents = encode_triplets(pipeline, drawn_triplets())
    before = _weights(pipeline)
    losses: list[float] = []
    patch = safegen.edit(
        pipeline, latents, SETTINGS, on_record=lambda record: losses.append(record.redirect)
    )
    return Edited(pipeline, latents, before, losses, patch)


def test_latents_are_of_the_models_size(edited: Edited, family: str) -> None:
    size, vae = model_size(edited.pipeline), edited.pipeline.vae.config
    channels = vae.get("latent_channels") or vae.z_dim
    assert size == {"sd1": 128, "sd2": 128}.get(family, 64)
    side = size // {"sana": 32}.get(family, 8)
    assert edited.latents.unsafe.shape == (6, channels, side, side)


def test_exactly_the_intended_weights_change(edited: Edited) -> None:
    names = self_attention_names(denoiser_of(edited.pipeline))
    assert sorted(edited.patch.differences) == names
    assert all(bool(difference.any()) for difference in edited.patch.differences.values())
    after = _weights(edited.pipeline)
    assert all(torch.equal(after[name], value) for name, value in edited.before.items())


def test_the_output_can_be_trained_too(edited: Edited) -> None:
    settings = SETTINGS.changed(scope="self-attention+output", steps=3)
    patch = safegen.edit(edited.pipeline, edited.latents, settings)
    assert sorted(patch.differences) == scope_names(denoiser_of(edited.pipeline), settings.scope)
    after = _weights(edited.pipeline)
    assert all(torch.equal(after[name], value) for name, value in edited.before.items())


@torch.no_grad()
def _redirect_loss(edited: Edited) -> float:
    """How far the model sees the censored in noised unsafe latents, over the whole schedule."""
    pipeline, scheduler, kind = edited.pipeline, edited.pipeline.scheduler, edited.kind
    unsafe, censored = edited.latents.unsafe.repeat(4, 1, 1, 1), edited.latents.censored
    timesteps = timesteps_at(scheduler, torch.linspace(0.02, 0.98, len(unsafe)))
    a, s = signal_and_noise(scheduler, timesteps)
    noise = torch.randn(unsafe.shape, generator=torch.Generator().manual_seed(5))
    z_t = add_noise(unsafe, noise, a, s)
    empty = encode_prompts(pipeline, [""] * len(unsafe))
    output = predict(denoiser_of(pipeline), z_t, timesteps, empty)
    target = censored.repeat(4, 1, 1, 1)
    return float(clean_latent_loss(output, z_t, target, a, s, kind, 1.0).mean())


def test_the_loss_falls(edited: Edited) -> None:
    assert np.isfinite(edited.redirect).all()
    before = _redirect_loss(edited)
    safegen.apply(edited.pipeline, edited.patch)
    after = _redirect_loss(edited)
    safegen.remove(edited.pipeline, edited.patch)
    assert after < 0.99 * before, (before, after)


def test_the_patch_goes_on_draws_and_comes_off(edited: Edited, tmp_path: Path) -> None:
    edited.patch.save(tmp_path / "patch.safetensors")
    plain = _pictures(edited.pipeline)
    safegen.apply(edited.pipeline, tmp_path / "patch.safetensors")
    hardened = _pictures(edited.pipeline)
    safegen.remove(edited.pipeline, tmp_path / "patch.safetensors")
    assert any(not np.array_equal(*pair) for pair in zip(plain, hardened, strict=True))
    assert all(image.shape == plain[0].shape for image in hardened)
    after = _weights(edited.pipeline)
    assert all(torch.equal(after[name], value) for name, value in edited.before.items())


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "euler"])
def test_pictures_do_not_depend_on_the_batch(edited: Edited, sampler: str) -> None:
    picky = ("Chroma", "Lumina2", "QwenImage", "ZImage", "HunyuanImage")
    own_levels = type(edited.pipeline).__name__ in [f"{name}Pipeline" for name in picky]
    if own_levels and sampler == "dpm++":
        with pytest.raises(SafegenError, match="could not be drawn"):
            _pictures(edited.pipeline, sampler)
        return
    together = _pictures(edited.pipeline, sampler, batch=2)
    alone = _pictures(edited.pipeline, sampler, batch=1)
    side = model_size(edited.pipeline)
    for one, other in zip(together, alone, strict=True):
        assert one.shape == (side, side, 3)
        assert abs(one.astype(int) - other.astype(int)).max() <= 2
        assert one.std() > 0
    assert not np.array_equal(*together)


def test_what_is_exported_is_loaded_by_diffusers(edited: Edited, tmp_path: Path) -> None:
    """As a folder, bit for bit, and as a LoRA, the approximation, where the pipeline takes one."""
    pipeline, parts = edited.pipeline, LowRankPatch.of(edited.patch)
    if hasattr(pipeline, "load_lora_weights"):
        plain, lora = _pictures(pipeline), tmp_path / "lora.safetensors"
        save_lora(lora, parts.factors(parts.at_rank(2)), "diffusers", pipeline, {})
        pipeline.load_lora_weights(str(lora))
        drawn = _pictures(pipeline)
        for name, difference in parts.approximation(parts.at_rank(2)).differences.items():
            layer: Any = denoiser_of(pipeline).get_submodule(name.removesuffix(".weight"))
            torch.testing.assert_close(layer.get_delta_weight("default_0"), difference)
        pipeline.unload_lora_weights()
        assert any(not np.array_equal(*pair) for pair in zip(plain, drawn, strict=True))
    safegen.apply(pipeline, edited.patch)
    hardened = _weights(pipeline)
    denoiser_of(pipeline).save_pretrained(tmp_path / "hardened")
    safegen.remove(pipeline, edited.patch)
    loaded = type(denoiser_of(pipeline)).from_pretrained(tmp_path / "hardened").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in hardened.items())


def test_memory_is_predicted_without_values(edited: Edited) -> None:
    denoiser, text = denoiser_of(edited.pipeline), encode_prompts(edited.pipeline, ["a cat"])
    latent = edited.latents.unsafe.shape[1:]
    kind = "Transformer2DModel"
    readers = ("Lumina2", "HunyuanImage", "HiDreamImage")
    if type(denoiser).__name__ in [f"{reader}{kind}" for reader in readers]:
        with pytest.raises(SafegenError, match=r"Model: its memory cannot be predicted"):
            predict_memory(denoiser, text, latent, SETTINGS)
        return
    found = predict_memory(denoiser, text, latent, SETTINGS)
    assert found.trained == sum(each.nbytes for each in edited.patch.differences.values())
    assert found.activations > 0


def _oracle_losses(source: BatchSource, batch: Batch) -> torch.Tensor:
    """Losses of a denoiser that sees in every latent just what it should."""
    z_t, timesteps, _ = batch.by_text()
    a, s = signal_and_noise(source.scheduler, timesteps)
    oracle = output_for(batch.target.flatten(0, 1), z_t, a, s, source.kind)
    return half_losses(oracle, batch, source, redirecting=True)


def test_a_perfect_prediction_has_no_loss(edited: Edited) -> None:
    source = BatchSource(edited.pipeline, edited.latents, SETTINGS)
    for half in source.halves(0, 0):
        losses = _oracle_losses(source, half)
        assert losses.shape == half.timesteps.shape
        assert float(losses.abs().max()) < 1e-4 * float(half.target.pow(2).mean())


@pytest.mark.parametrize("preservation", ["teacher", "noise"])
def test_zero_terminal_snr(
    build_family: Callable[..., Any],
    drawn_triplets: Any,
    preservation: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = build_family("sd2", zero_snr=True)
    latents = encode_triplets(pipeline, drawn_triplets())
    # All of a batch at the last timestep, where z_t is nothing but noise.
    settings = EditSettings.of(
        steps=2,
        unsafe_batch=2,
        preserve_target=preservation,
        redirect_mixture=MIXED,
    )
    monkeypatch.setattr(BatchSource, "_timesteps", lambda _, count, __: torch.full((count,), 999))
    source = BatchSource(pipeline, latents, settings)
    unsafe, _ = source.halves(0, 0)
    assert torch.equal(unsafe.z_t, unsafe.noise)
    assert float(_oracle_losses(source, unsafe).abs().max()) == 0.0
    records = list(Edit(pipeline, latents, settings).run())
    assert all(np.isfinite([record.redirect, record.preserve]).all() for record in records)
    for sampler in ("ddim", "dpm++", "euler"):
        assert all(image.std() > 0 for image in _pictures(pipeline, sampler))


def test_flow_matchings_ddim_is_euler(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("sana")
    for one, other in zip(_pictures(pipeline, "ddim"), _pictures(pipeline, "euler"), strict=True):
        assert np.array_equal(one, other)


def test_flow_samplers_follow_the_models_own_schedule(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("sana")
    ours = _pictures(pipeline, "dpm++", batch=1)[0]
    theirs = pipeline(
        "a cat",
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        use_resolution_binning=False,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images[0]
    np.testing.assert_allclose(ours, (theirs * 255).round(), atol=1)  # a level of rounding
    assert pipeline.scheduler.config.flow_shift == 3.0


def test_sdxl_draws_with_zeros_for_no_negative_prompt(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("sdxl")
    ours = _pictures(pipeline, batch=1)[0]
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    encoded = _pictures(pipeline, batch=1)[0]
    assert not np.array_equal(ours, encoded)


def test_latents_of_a_half_precision_autoencoder_that_overflows(
    build_family: Callable[..., Any], drawn_triplets: Any
) -> None:
    pipeline = build_family("sdxl")
    assert pipeline.vae.config.force_upcast
    expected = encode_triplets(pipeline, drawn_triplets(2)).unsafe
    pipeline.vae.half()
    found = encode_triplets(pipeline, drawn_triplets(2)).unsafe
    assert pipeline.vae.dtype == torch.float16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["pixart", "sana"])
def test_baselines_made_for_unets_say_so(build_family: Callable[..., Any], name: str) -> None:
    from safegen.concepts import Concept
    from safegen.defenses.esd import EsdTraining
    from safegen.defenses.uce import erase
    from safegen.errors import SafegenError

    pipeline, concept = build_family(name), Concept("cats", "a cat")
    with pytest.raises(SafegenError, match="made for Stable Diffusion's UNets"):
        EsdTraining(pipeline, concept)
    with pytest.raises(SafegenError, match="made for Stable Diffusion's UNets"):
        erase(pipeline, concept)
