"""Patches as LoRA files, against NumPy's decomposition and diffusers' loading of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

import safegen
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.patches.lora import OVERHEAD, Layout, lora_tensors, save_lora, usual_layout
from safegen.patches.low_rank import LowRankPatch, Ranks
from safegen.patches.patch import Patch

LAYOUTS: tuple[Layout, ...] = ("diffusers", "kohya")


def _patch(pipeline: Any, scale: float = 0.2) -> Patch:
    """Random differences of all self-attention weights, with falling singular values."""
    generator = torch.Generator().manual_seed(0)
    parameters = dict(pipeline.unet.named_parameters())
    differences = {}
    for name in self_attention_names(pipeline.unet):
        shape = parameters[name].shape
        falling = 0.8 ** torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
        differences[name] = scale * falling * torch.randn(shape, generator=generator)
    base = {"fingerprint": fingerprint(pipeline.unet)}
    return Patch(differences, {"concept": "squares", "base": base})


def _predict(pipeline: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    z_t = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 16, 16, generator=generator)
    with torch.no_grad():
        output: torch.Tensor = pipeline.unet(z_t, torch.tensor([10, 700]), text).sample
    return output


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("choice", ["full", "mixed", "one"])
def test_diffusers_draws_what_the_approximation_draws(
    tiny_pipeline: Any, tmp_path: Path, layout: Layout, choice: str
) -> None:
    parts = LowRankPatch.of(_patch(tiny_pipeline))
    ranks: Ranks = {
        "full": parts.at_rank(parts.full_rank),
        "mixed": parts.for_energy(0.8),
        "one": parts.at_rank(1),
    }[choice]
    if choice == "mixed":
        assert len(set(ranks.values())) > 2
    path = tmp_path / "lora.safetensors"
    save_lora(path, parts.factors(ranks), layout, tiny_pipeline, parts.patch.metadata)
    original = _predict(tiny_pipeline)
    tiny_pipeline.load_lora_weights(str(path))
    loaded = _predict(tiny_pipeline)
    tiny_pipeline.unload_lora_weights()
    assert torch.equal(_predict(tiny_pipeline), original)
    safegen.apply(tiny_pipeline, parts.approximation(ranks))
    expected = _predict(tiny_pipeline)
    torch.testing.assert_close(loaded, expected, rtol=1e-4, atol=1e-5)
    assert (expected - original).abs().max() > 1e-2


def test_full_rank_is_the_patch_but_for_the_biases(tiny_pipeline: Any) -> None:
    patch = _patch(tiny_pipeline)
    parts = LowRankPatch.of(patch)
    ranks = parts.at_rank(10_000)
    whole = parts.approximation(ranks).differences
    biases = {name for name in patch.differences if name.endswith("to_out.0.bias")}
    assert set(parts.left_out) == biases == patch.differences.keys() - whole.keys()
    for name, difference in whole.items():
        torch.testing.assert_close(difference, patch.differences[name], rtol=1e-4, atol=1e-5)
    assert parts.energy(ranks) == pytest.approx(1)
    squares = {n: float(d.double().pow(2).sum()) for n, d in patch.differences.items()}
    share = sum(squares[name] for name in biases) / sum(squares.values())
    assert parts.left_out_energy == pytest.approx(share)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_error_is_that_of_numpys_truncation(tiny_pipeline: Any, rank: int) -> None:
    patch = _patch(tiny_pipeline)
    parts = LowRankPatch.of(patch)
    approximation = parts.approximation(parts.at_rank(rank)).differences
    lost = whole = 0.0
    for name in parts.spectra:
        matrix = patch.differences[name].double().numpy()
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        np.testing.assert_allclose(approximation[name].numpy(), best, atol=1e-5)
        lost, whole = lost + ((matrix - best) ** 2).sum(), whole + (matrix**2).sum()
    assert parts.error(parts.at_rank(rank)) == pytest.approx(np.sqrt(lost / whole), rel=1e-5)


def _matrices(seed: int) -> LowRankPatch:
    rng = np.random.default_rng(seed)
    shapes = rng.integers(2, 9, size=(4, 2))
    return LowRankPatch.of(
        Patch(
            {
                f"layer{i}.weight": torch.from_numpy(rng.normal(size=shape) * rng.uniform(0.1, 3))
                for i, shape in enumerate(shapes)
            }
        )
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 1))
def test_energy_is_reached_in_the_least_space(seed: int, share: float) -> None:
    parts = _matrices(seed)
    ranks = parts.for_energy(share)
    assert parts.energy(ranks) >= share - 1e-9
    for rank in range(1, parts.full_rank + 1):
        uniform = parts.at_rank(rank)
        if parts.size(uniform) <= parts.size(ranks):
            assert parts.energy(uniform) <= parts.energy(ranks) + 1e-9


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), numbers=st.integers(20, 400))
def test_size_is_kept_and_used_up(seed: int, numbers: int) -> None:
    parts = _matrices(seed)
    ranks = parts.for_size(numbers)
    assert 0 < parts.size(ranks) <= numbers
    for name, spectrum in parts.spectra.items():
        more = {**ranks, name: ranks[name] + 1}
        assert ranks[name] == spectrum.full_rank or parts.size(more) > numbers


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_file_is_no_larger_than_promised(
    tiny_pipeline: Any, tmp_path: Path, layout: Layout
) -> None:
    parts = LowRankPatch.of(_patch(tiny_pipeline))
    room = 20_000
    ranks = parts.for_size((room - OVERHEAD * len(parts.spectra)) // 2)
    path = tmp_path / "lora.safetensors"
    save_lora(path, parts.factors(ranks, torch.float16), layout, tiny_pipeline, {})
    assert path.stat().st_size <= room
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}


def test_the_names_are_the_published_ones(tiny_pipeline: Any) -> None:
    parts = LowRankPatch.of(_patch(tiny_pipeline))
    factors = parts.factors(parts.at_rank(2))
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    own = lora_tensors(factors, "diffusers", tiny_pipeline)
    assert own[f"unet.{module}.lora_A.weight"].shape == (2, 16)
    assert own[f"unet.{module}.lora_B.weight"].shape == (16, 2)
    kohya = lora_tensors(factors, "kohya", tiny_pipeline)
    flat = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert torch.equal(kohya[f"{flat}.lora_down.weight"], own[f"unet.{module}.lora_A.weight"])
    assert torch.equal(kohya[f"{flat}.lora_up.weight"], own[f"unet.{module}.lora_B.weight"])
    assert kohya[f"{flat}.alpha"] == 2
    other = SimpleNamespace(transformer=torch.nn.Linear(1, 1))
    assert "transformer." in next(iter(lora_tensors(factors, "diffusers", other)))
    with pytest.raises(SafegenError, match="use --layout diffusers"):
        lora_tensors(factors, "kohya", other)
    assert (usual_layout(tiny_pipeline), usual_layout(other)) == ("kohya", "diffusers")


def test_xl_has_the_names_of_sd_scripts_and_is_the_same_to_the_bit_in_diffusers(
    tiny_pipeline: Any, build_xl: Callable[..., Any], tmp_path: Path
) -> None:
    pipeline = build_xl(tiny_pipeline)
    parts = LowRankPatch.of(_patch(pipeline))
    factors = parts.factors(parts.at_rank(4))
    names = {name.split(".")[0] for name in lora_tensors(factors, "kohya", pipeline)}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q" in names
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0" in names
    assert "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_v" in names
    assert len(names) == len(factors)
    loaded = []
    for layout in LAYOUTS:
        save_lora(tmp_path / f"{layout}.safetensors", factors, layout, pipeline, {})
        pipeline.load_lora_weights(str(tmp_path / f"{layout}.safetensors"))
        state = pipeline.unet.state_dict()
        loaded.append({name: value for name, value in state.items() if "lora" in name})
        pipeline.unload_lora_weights()
    assert loaded[0].keys() == loaded[1].keys()
    assert all(torch.equal(value, loaded[1][name]) for name, value in loaded[0].items())


@pytest.mark.parametrize(
    ("width", "kind", "version", "architecture"),
    [
        (768, "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
        (1024, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        (1024, "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        (2048, "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
        (16, "epsilon", None, None),
    ],
)
def test_the_header_says_what_web_uis_look_for(
    tiny_pipeline: Any,
    tmp_path: Path,
    width: int,
    kind: str,
    version: str | None,
    architecture: str | None,
) -> None:
    parts = LowRankPatch.of(_patch(tiny_pipeline))
    unet, scheduler = tiny_pipeline.unet, tiny_pipeline.scheduler
    added = "text_time" if width == 2048 else None
    unet.register_to_config(cross_attention_dim=width, addition_embed_type=added)
    scheduler.register_to_config(prediction_type=kind)
    path = tmp_path / "lora.safetensors"
    save_lora(path, parts.factors(parts.at_rank(3)), "kohya", tiny_pipeline, {})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header.get("ss_base_model_version") == version
    assert header.get("modelspec.architecture") == architecture
    assert header["ss_v2"] == str(width == 1024)
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("3", "3.0")
    assert header["modelspec.resolution"] == "16x16"
    assert header["modelspec.prediction_type"] == kind.removesuffix("_prediction")


def test_what_cannot_be_asked_for_is_refused(tiny_pipeline: Any) -> None:
    parts = LowRankPatch.of(_patch(tiny_pipeline))
    for share in (0.0, 1.01, float("nan")):
        with pytest.raises(SafegenError, match="share above 0"):
            parts.for_energy(share)
    with pytest.raises(SafegenError, match="at least 1, not 0"):
        parts.at_rank(0)
    with pytest.raises(SafegenError, match="allow more megabytes"):
        parts.for_size(5)
    with pytest.raises(SafegenError, match="changes no weight matrix"):
        LowRankPatch.of(Patch({"norm.bias": torch.ones(4)}))
