"""Safe Latent Diffusion against the implementation that diffusers ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses._sld import MAX, MEDIUM, STRONG, WEAK, SldSettings
from safegen.defenses._text import InactiveGuidanceWarning
from safegen.errors import SafegenError
from safegen.models.conditioning import embed_prompts

CONFIGURATIONS = {"weak": WEAK, "medium": MEDIUM, "strong": STRONG, "max": MAX}
STEPS = 20
PROMPTS = ["a knife in snow", "a cat and a house"]


def as_arguments(settings: SldSettings) -> dict[str, float]:
    """Settings in the names of diffusers."""
    return {
        "sld_warmup_steps": settings.warmup_steps,
        "sld_guidance_scale": settings.guidance_scale,
        "sld_threshold": settings.threshold,
        "sld_momentum_scale": settings.momentum_scale,
        "sld_mom_beta": settings.momentum_decay,
    }


def trajectory_of_diffusers(
    pipeline: Any, latents: torch.Tensor, text: str, settings: SldSettings
) -> torch.Tensor:
    """Latents after every step (T, B, C, H, W) of diffusers' own SLD pipeline."""
    from diffusers import StableDiffusionPipelineSafe

    parts = {**pipeline.components, "safety_checker": None, "feature_extractor": None}
    reference = StableDiffusionPipelineSafe(**parts, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    reference.safety_concept = text
    seen: list[torch.Tensor] = []
    reference(
        PROMPTS,
        height=16,
        width=16,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        latents=latents.clone(),
        output_type="np",
        callback=lambda _step, _timestep, current: seen.append(current.clone()),
        callback_steps=1,
        **as_arguments(settings),
    )
    return torch.stack(seen)


def trajectory_of_ours(
    pipeline: Any, latents: torch.Tensor, forced: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """Latents after every step (T, B, C, H, W) of the plain pipeline's own call.

    With ``forced`` (T, B, C, H, W) each step starts from these instead of the last one's result.
    """
    seen: list[torch.Tensor] = []

    def keep(_pipeline: Any, step: int, _timestep: int, values: Any) -> Any:
        seen.append(values["latents"].clone())
        return values if forced is None else {"latents": forced[step].clone()}

    pipeline(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        latents=latents.clone(),
        output_type="latent",
        callback_on_step_end=keep,
        **options,
    )
    return torch.stack(seen)


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def lively_pipeline(tiny_pipeline: Any) -> Any:
    """The tiny pipeline with cross-attention strong enough for prompts to matter."""
    with torch.no_grad():
        for name, parameter in tiny_pipeline.unet.named_parameters():
            if "attn2" in name:
                parameter.mul_(6)
    return tiny_pipeline


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_agrees_with_diffusers_at_every_step(
    name: str, lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    settings = CONFIGURATIONS[name]
    expected = trajectory_of_diffusers(lively_pipeline, latents, knives.text, settings)
    with defended(lively_pipeline, f"sld-{name}", knives):
        found = trajectory_of_ours(lively_pipeline, latents, expected)
    assert found.shape == expected.shape == (STEPS, 2, 4, 8, 8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    plain = trajectory_of_ours(lively_pipeline, latents, expected)
    moved = (plain - found).abs().flatten(1).amax(dim=1)
    assert (moved[: settings.warmup_steps] < 1e-5).all(), "acted during the warm-up"
    assert (moved[settings.warmup_steps :] > 1e-3).all(), "did not act after the warm-up"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_agrees_with_diffusers_over_a_whole_call(
    name: str, lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    # In double precision, since guidance of up to 5000 makes a call's end chaotic in single.
    pipeline, latents = lively_pipeline.to(torch.float64), latents.double()
    expected = trajectory_of_diffusers(pipeline, latents, knives.text, CONFIGURATIONS[name])
    with defended(pipeline, f"sld-{name}", knives):
        found = trajectory_of_ours(pipeline, latents)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_settings_are_those_of_diffusers_but_for_the_weak_guidance() -> None:
    from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig

    assert as_arguments(MEDIUM) == SafetyConfig.MEDIUM
    assert as_arguments(STRONG) == SafetyConfig.STRONG
    assert as_arguments(MAX) == SafetyConfig.MAX
    assert as_arguments(replace(WEAK, guidance_scale=20)) == SafetyConfig.WEAK
    assert WEAK.guidance_scale == 200


def test_a_broken_off_call_leaves_nothing_behind(
    lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("broken off")

    with defended(lively_pipeline, "sld-max", knives):
        expected = trajectory_of_ours(lively_pipeline, latents)
        with pytest.raises(RuntimeError, match="broken off"):
            lively_pipeline(PROMPTS, num_inference_steps=5, callback_on_step_end=fail)
        assert torch.equal(trajectory_of_ours(lively_pipeline, latents), expected)


def test_guidance_is_past_a_negative_prompt_and_for_each_of_several_pictures(
    lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    options = {"negative_prompt": ["the house", "snow"]}
    plain = trajectory_of_ours(lively_pipeline, latents, **options)
    with defended(lively_pipeline, "sld-max", knives):
        both = trajectory_of_ours(lively_pipeline, latents, **options)
        pair = lively_pipeline(
            PROMPTS[0], num_images_per_prompt=2, num_inference_steps=2, output_type="latent",
            latents=latents[:1].expand(2, -1, -1, -1),
        ).images  # fmt: skip
    assert (both - plain).abs().max() > 1e-2
    torch.testing.assert_close(pair[0], pair[1])


def test_without_guidance_it_says_that_it_does_nothing(
    tiny_pipeline: Any, knives: Concept, pictures: Callable[..., np.ndarray]
) -> None:
    plain = pictures(tiny_pipeline, guidance=1.0, steps=2)
    for name in ("sld-max", "negative-prompt"):
        with defended(tiny_pipeline, name, knives), pytest.warns(InactiveGuidanceWarning):
            assert np.array_equal(pictures(tiny_pipeline, guidance=1.0, steps=2), plain)


def test_two_of_its_kinds_are_refused(tiny_pipeline: Any, knives: Concept) -> None:
    with pytest.raises(SafegenError, match="has SLD already"):
        create_defense("sld-weak+sld-max", knives).apply(tiny_pipeline)


def build_xl(tiny: Any) -> Any:
    """A tiny SDXL pipeline with the tiny tokenizer twice."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    text = CLIPTextConfig(**{**tiny.text_encoder.config.to_dict(), "projection_dim": 16})
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=tiny.vae,
        text_encoder=CLIPTextModel(text).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text).eval(),
        tokenizer=tiny.tokenizer,
        tokenizer_2=tiny.tokenizer,
        unet=unet.eval(),
        scheduler=tiny.scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_on_sdxl_a_prompt_that_is_the_concept_is_left_and_others_are_moved(
    tiny_pipeline: Any, latents: torch.Tensor
) -> None:
    pipeline = build_xl(tiny_pipeline)
    options = {"num_inference_steps": 3, "latents": latents[:1], "output_type": "latent"}
    plain = pipeline("a cat", **options).images
    # Where prompt and concept coincide, c - s = 0 and so gamma = 0.
    with defended(pipeline, "sld-max", Concept("cats", "a cat")):
        same = pipeline("a cat", **options).images
    with defended(pipeline, "sld-max", Concept("houses", "the house")):
        other = pipeline("a cat", **options).images
    with defended(pipeline, "negative-prompt", Concept("houses", "the house")):
        negative = pipeline("a cat", **options).images
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-5)
    assert (other - plain).abs().max() > 1e-4
    expected = pipeline("a cat", negative_prompt="the house", **options).images
    assert torch.equal(negative, expected)
    with pytest.raises(SafegenError, match=r"StableDiffusionXLPipeline: .*pooled features"):
        embed_prompts(pipeline, ["a cat"])


def test_negative_prompt_is_the_pipelines_own(
    lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    joined = ["snow, a knife", "a knife"]
    expected = trajectory_of_ours(lively_pipeline, latents, negative_prompt=joined)
    with defended(lively_pipeline, "negative-prompt", knives):
        found = trajectory_of_ours(lively_pipeline, latents, negative_prompt=["snow", ""])
        alone = trajectory_of_ours(lively_pipeline, latents)
        with pytest.raises(SafegenError, match="cannot add its text to embeddings"):
            lively_pipeline(
                prompt_embeds=torch.zeros(1, 16, 16), negative_prompt_embeds=torch.zeros(1, 16, 16)
            )
    assert torch.equal(found, expected)
    assert not torch.equal(alone, expected)


def test_negative_prompt_can_have_a_guidance_scale_of_its_own(
    lively_pipeline: Any, latents: torch.Tensor, knives: Concept
) -> None:
    def drawn(spec: str, scale: float) -> Any:
        options = {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "np"}
        with defended(lively_pipeline, spec, knives):
            return lively_pipeline(
                PROMPTS, latents=latents.clone(), guidance_scale=scale, **options
            ).images

    assert np.array_equal(drawn("negative-prompt,guidance=9", 5), drawn("negative-prompt", 9))
    with pytest.raises(SafegenError, match="guidance must be above 1, not 1"):
        create_defense("negative-prompt,guidance=1", knives)
