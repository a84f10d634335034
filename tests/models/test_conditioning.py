"""What the denoiser is told in an edit is what it is told when the pipeline draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import (
    TextCondition,
    embed_prompts,
    encode_prompts,
    encode_random_tokens,
)
from safegen.models.denoising import predict
from safegen.models.families.hidream import LLAMA
from safegen.models.families.hunyuan_image import GLYPHS
from safegen.models.sampling import ImageRequest, SamplingSettings, generate

THOUSANDTHS = ("flux", "chroma", "aura-flow", "qwen-image", "flux2")
"""Families whose denoisers take a share of the schedule instead of a timestep."""
REVERSED = ("lumina2", "z-image")
"""Families whose time runs from noise to picture."""
NEGATED = (*REVERSED, "hidream")
"""Families whose denoisers predict z_0 - n."""
HUNYUAN_DIT = (
    "encoder_hidden_states_t5", "text_embedding_mask_t5", "image_meta_size", "style",
)  # fmt: skip


def _watched_call(pipeline: Any, **how: Any) -> tuple[dict[str, Any], Any]:
    """Arguments and output of the denoiser in the first step of a picture of a cat."""
    calls: list[Any] = []
    denoiser = denoiser_of(pipeline)
    hook = denoiser.register_forward_hook(
        lambda _, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    list(generate(pipeline, [ImageRequest("a cat", 0)], SamplingSettings(steps=2, **how)))
    hook.remove()
    args, kwargs, output = calls[0]
    return inspect.signature(type(denoiser).forward).bind(None, *args, **kwargs).arguments, output[
        0
    ]


def _latents(pipeline: Any, family: str, given: Any) -> torch.Tensor:
    """What the denoiser takes or makes, as latents."""
    if family in ("flux", "chroma", "qwen-image"):
        given = pipeline._unpack_latents(given, 64, 64, 8)
    elif family == "flux2":
        given = pipeline._unpatchify_latents(given.mT.reshape(1, 16, 4, 4))
    elif family == "z-image":
        given = torch.stack(given)
    latents: torch.Tensor = given.squeeze(2) if given.dim() == 5 else given
    return latents


def test_a_text_is_what_the_pipelines_own_call_makes_of_it(pipeline: Any, family: str) -> None:
    told, output = _watched_call(pipeline, guidance_scale=3.5)  # FLUX's, as in an edit
    names = ("encoder_hidden_states", "encoder_hidden_states_t5", "cap_feats")
    hidden = next(told[name] for name in names if name in told)
    # The unconditional half comes first; some have none, or pass it on its own.
    prompts = ["a cat", ""] if family == "z-image" else ["", "a cat"][-len(hidden) :]
    condition = encode_prompts(pipeline, prompts)
    names = (
        "encoder_attention_mask", "attention_mask", "encoder_hidden_states_mask",
        "text_embedding_mask",
    )  # fmt: skip
    mask = next((told[name] for name in names if told.get(name) is not None), None)
    assert condition.mask is not None or mask is None
    for row, states in enumerate(hidden):
        torch.testing.assert_close(condition.hidden[row, : len(states)], states)
        if condition.mask is not None:  # edits pad texts where the pipeline pads fewer or none
            valid = torch.zeros(condition.hidden.shape[1])
            valid[: len(states)] = 1 if mask is None else mask[row, : len(states)]
            assert torch.equal(condition.mask[row].float(), valid)
    added = {name: v for name, v in (told.get("added_cond_kwargs") or {}).items() if v is not None}
    for name in ("pooled_projections", "pooled_embeds"):
        if name in told:
            added["text_embeds"] = told[name]
    if family == "hidream":
        added[LLAMA] = told[LLAMA].transpose(0, 1)
    else:
        added |= {name: told[name] for name in (*GLYPHS, *HUNYUAN_DIT) if name in told}
    assert condition.added.keys() == added.keys()
    for name, value in added.items():
        torch.testing.assert_close(condition.added[name], value)
    timestep = next(told[name] for name in ("timestep", "timesteps", "t") if name in told)
    if family in THOUSANDTHS:
        timestep = timestep * 1000
    z_t = next(told[name] for name in ("sample", "hidden_states", "x") if name in told)
    z_t, expected = (_latents(pipeline, family, each) for each in (z_t, output))
    if family in REVERSED:
        timestep = (1 - timestep) * 1000
    if family in NEGATED:
        expected = -expected
    with torch.no_grad():
        seen = predict(denoiser_of(pipeline), z_t, timestep.expand(len(z_t)), condition)
    torch.testing.assert_close(seen, expected[:, : z_t.shape[1]])


def test_sdxls_empty_prompt_is_zeros_where_it_is_configured_so(
    build_family: Callable[..., Any],
) -> None:
    pipeline = build_family("sdxl")
    condition = encode_prompts(pipeline, ["a cat", "", "the snow"])
    zero = [not bool(value[1].any()) for value in condition.embeddings.values()]
    assert zero == [True, True]
    assert all(bool(v[row].any()) for v in condition.embeddings.values() for row in (0, 2))
    assert condition.added["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 3
    alone = encode_prompts(pipeline, ["the snow"])
    torch.testing.assert_close(condition[2:].hidden, alone.hidden)
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert bool(encode_prompts(pipeline, [""]).hidden.any())


def test_random_texts_differ_and_depend_on_the_seed_only(pipeline: Any) -> None:
    def draw(seed: int) -> TextCondition:
        return encode_random_tokens(pipeline, 5, torch.Generator().manual_seed(seed), batch=2)

    first, again, other = draw(0), draw(0), draw(1)
    assert torch.equal(first.hidden, again.hidden)
    assert not torch.equal(first.hidden, other.hidden)
    assert len({tuple(row.flatten().tolist()) for row in first.hidden}) == 5
    if first.mask is not None:
        assert len(set(first.mask.sum(dim=1).tolist())) > 1  # short and long texts


def test_conditions_are_taken_apart_and_put_together(pipeline: Any) -> None:
    condition = encode_prompts(pipeline, ["a cat", "the snow", "a house and a cat"])
    mixed = TextCondition.cat([condition[2:], condition[torch.tensor([0, 1])]])
    assert len(mixed) == 3
    for name, value in mixed.embeddings.items():
        assert torch.equal(value, condition.embeddings[name][torch.tensor([2, 0, 1])])
    half = condition.to("cpu", torch.float16)
    assert half.hidden.dtype == torch.float16
    assert half.mask is None or torch.equal(half.mask, condition.mask)


def test_hidden_states_alone_are_refused_where_they_are_not_all(pipeline: Any, family: str) -> None:
    if family in ("sd1", "sd2", "aura-flow", "flux2", "wan"):
        assert torch.equal(
            embed_prompts(pipeline, ["a cat"]), encode_prompts(pipeline, ["a cat"]).hidden
        )
        return
    with pytest.raises(SafegenError, match="takes more of a text than hidden states"):
        embed_prompts(pipeline, ["a cat"])


def test_pixart_alpha_is_told_the_pictures_size(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("pixart-alpha")
    condition = encode_prompts(pipeline, ["", "a cat"])
    assert condition.added["resolution"].tolist() == [[64, 64]] * 2
    assert condition.added["aspect_ratio"].tolist() == [[1]] * 2
    assert condition.hidden.shape[1] == 120
    z_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([3, 900])
    with torch.no_grad():
        seen = predict(pipeline.transformer, z_t, timesteps, condition)
        theirs = pipeline.transformer(
            z_t,
            encoder_hidden_states=condition.hidden,
            encoder_attention_mask=condition.mask,
            timestep=timesteps,
            added_cond_kwargs={
                "resolution": torch.tensor([[64.0, 64.0]] * 2),
                "aspect_ratio": torch.ones(2, 1),
            },
        ).sample
    assert theirs.shape == (2, 8, 8, 8)  # epsilon and a learned variance
    assert torch.equal(seen, theirs[:, :4])


def test_distilled_guidance_is_told_as_a_number(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("flux2", distilled=True)
    told, output = _watched_call(pipeline, guidance_scale=4.0)
    z_t, flow = (_latents(pipeline, "flux2", each) for each in (told["hidden_states"], output))
    condition = encode_prompts(pipeline, ["a cat"])
    with torch.no_grad():
        seen = predict(pipeline.transformer, z_t, told["timestep"] * 1000, condition)
    torch.testing.assert_close(seen, flow)
    with pytest.raises(SafegenError, match=r"Flux2Pipeline: .* takes no negative prompt"):
        _watched_call(pipeline, negative_prompt="the snow")


def test_a_negative_prompt_steers_where_the_call_takes_embeddings_alone(
    build_family: Callable[..., Any],
) -> None:
    pipeline, request = build_family("flux2"), [ImageRequest("a cat", 0)]
    settings = [SamplingSettings(steps=2, negative_prompt=text) for text in ("", "the snow")]
    plain, steered = (next(generate(pipeline, request, each))[1] for each in settings)
    assert (plain != steered).any()


@torch.no_grad()
def test_quoted_letters_and_a_mean_flow(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("hunyuan-image", distilled=True)
    letters = encode_prompts(pipeline, ["a cat", "a cat that says 'snow'"]).added[GLYPHS[1]]
    assert [bool(row.any()) for row in letters] == [False, True]
    told, flow = _watched_call(pipeline, guidance_scale=3.25)  # as in an edit
    told |= {"timestep_r": told["timestep"], "return_dict": False}
    (instant,) = pipeline.transformer(**{k: v for k, v in told.items() if k != "self"})
    condition = encode_prompts(pipeline, ["a cat"])
    seen = predict(pipeline.transformer, told["hidden_states"], told["timestep"], condition)
    torch.testing.assert_close(seen, instant)
    assert not torch.equal(instant, flow)  # of a step of the pipeline's length


def test_a_guider_follows_the_settings(build_family: Callable[..., Any]) -> None:
    pipeline, request = build_family("hunyuan-image"), [ImageRequest("a cat", 0)]
    guider = pipeline.guider
    weak, strong = (
        next(generate(pipeline, request, SamplingSettings(steps=2, guidance_scale=scale)))[1]
        for scale in (1.0, 9.0)
    )
    assert (weak != strong).any()
    assert pipeline.guider is guider


def test_two_denoisers_in_turn_are_refused(build_family: Callable[..., Any]) -> None:
    with pytest.raises(SafegenError, match="WanPipeline: it draws with two denoisers in turn"):
        encode_prompts(build_family("wan", stages=2), ["a cat"])


def test_a_refiner_is_refused(build_family: Callable[..., Any]) -> None:
    pipeline = build_family("sdxl")
    pipeline.unet.register_to_config(projection_class_embeddings_input_dim=5 * 8 + 24)
    with pytest.raises(SafegenError, match="does not take SDXL's six sizes"):
        encode_prompts(pipeline, ["a cat"])


def test_a_family_that_is_not_known_is_refused() -> None:
    from diffusers import DiTTransformer2DModel

    class OtherPipeline:
        transformer = DiTTransformer2DModel(num_layers=1, num_attention_heads=1)

    with pytest.raises(SafegenError, match=r"OtherPipeline: how it takes .* FluxPipeline, .* one"):
        encode_prompts(OtherPipeline(), ["a cat"])
