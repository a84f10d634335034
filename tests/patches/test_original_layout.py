"""Files in the original layout, against diffusers' own reading of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import safegen
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.patches.original_layout import (
    UNetNames,
    overlay_single_file,
    save_single_file,
    single_file_tensors,
)
from safegen.patches.patch import Patch

STABLE_DIFFUSION = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
ONE = {**STABLE_DIFFUSION, "cross_attention_dim": 768, "attention_head_dim": 8}
TWO = {
    **STABLE_DIFFUSION,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
XL = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module", params=["1.x", "2.x", "xl"])
def pipeline(
    request: pytest.FixtureRequest,
    build_pipeline: Callable[..., Any],
    build_text: Callable[..., Any],
    build_xl: Callable[..., Any],
) -> Any:
    """A tiny pipeline of each family; every weight is different from every other."""
    made = build_pipeline()
    if request.param == "2.x":
        made.text_encoder = build_text(made.tokenizer, 16, "gelu")
        made.vae = AutoencoderKL(  # three levels, so that counting from below is no symmetry
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 16, 16),
            latent_channels=4,
            norm_num_groups=8,
        ).eval()
    made = build_xl(made) if request.param == "xl" else made
    generator = torch.Generator().manual_seed(1)
    for part in _networks(made).values():
        for parameter in part.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return made


def _networks(pipeline: Any) -> dict[str, Any]:
    parts = pipeline.components.items()
    return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}


def _assert_same_weights(first: Any, second: Any, dtype: torch.dtype | None = None) -> None:
    assert _networks(first).keys() == _networks(second).keys()
    for name, network in _networks(first).items():
        before, after = network.state_dict(), _networks(second)[name].state_dict()
        assert before.keys() == after.keys(), name
        for key, value in before.items():
            expected = value if dtype is None else value.to(dtype)
            assert after[key].dtype == expected.dtype
            assert torch.equal(expected, after[key]), (name, key)


@pytest.mark.parametrize("half", [False, True])
def test_diffusers_reads_back_every_bit(pipeline: Any, half: bool, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "folder")
    path = tmp_path / "model.safetensors"
    save_single_file(pipeline, path, {"concept": "squares"}, half=half)
    dtype = torch.float16 if half else torch.float32
    read = type(pipeline).from_single_file(
        str(path), config=str(tmp_path / "folder"), dtype=dtype, local_files_only=True
    )
    _assert_same_weights(pipeline, read, dtype)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["safegen"]) == {"concept": "squares"}


def test_the_layout_says_which_family_it_is(pipeline: Any) -> None:
    names = single_file_tensors(pipeline).keys()
    roots = {name.split(".")[0] for name in names}
    if isinstance(pipeline, StableDiffusionXLPipeline):
        assert roots == {"model", "first_stage_model", "conditioner", "v_pred", "ztsnr"}
        assert "conditioner.embedders.1.model.text_projection" in names
    else:
        assert roots == {"model", "first_stage_model", "cond_stage_model"}
        is_open = pipeline.text_encoder.config.hidden_act == "gelu"
        open_clip = "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias"
        assert (open_clip in names) == is_open


@pytest.mark.parametrize("config", [ONE, TWO, XL], ids=["1.x", "2.x", "xl"])
def test_full_size_networks_have_the_published_names(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    names = UNetNames(unet)
    originals = {names.original(name): name for name in unet.state_dict()}
    assert len(originals) == len(unet.state_dict())
    values = {original: torch.empty(1) for original in originals}
    read = convert_ldm_unet_checkpoint(values, unet.config)
    assert {name: id(value) for name, value in read.items()} == {
        name: id(values[original]) for original, name in originals.items()
    }


def test_self_attention_is_where_the_original_has_it() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**ONE)
    names = UNetNames(unet)
    found = {names.original(name).split(".transformer_blocks")[0] for name in
             self_attention_names(unet)}  # fmt: skip
    blocks = [
        *(f"input_blocks.{i}.1" for i in (1, 2, 4, 5, 7, 8)),
        "middle_block.1",
        *(f"output_blocks.{i}.1" for i in range(3, 12)),
    ]
    assert found == {f"model.diffusion_model.{block}" for block in blocks}


def test_an_overlay_changes_nothing_but_the_patch(tiny_pipeline: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "base.safetensors", tmp_path / "hardened.safetensors"
    save_single_file(tiny_pipeline, source, {}, half=True)
    header = {"modelspec.title": "mine", "modelspec.hash_sha256": "0x1", "sshs_model_hash": "2"}
    extra = {"model_ema.num_updates": torch.tensor(7), "alphas_cumprod": torch.rand(5)}
    save_file(load_file(source) | extra, source, header)
    tiny_pipeline.save_pretrained(tmp_path / "folder")
    pipeline = StableDiffusionPipeline.from_single_file(
        str(source), config=str(tmp_path / "folder"), dtype=torch.float32, local_files_only=True
    )
    name = self_attention_names(pipeline.unet)[0]
    difference = torch.full(dict(pipeline.unet.named_parameters())[name].shape, 0.5)
    base = {"fingerprint": fingerprint(pipeline.unet)}
    safegen.apply(pipeline, Patch({name: difference}, {"base": base}))
    overlay_single_file(source, pipeline, [name], out, {"concept": "squares"})
    before, after = load_file(source), load_file(out)
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert before.keys() == after.keys()
    assert changed == {UNetNames(pipeline.unet).original(name)}
    (key,) = changed
    assert torch.equal(after[key], (before[key].float() + difference).half())
    with safe_open(out, framework="pt") as file:
        assert file.metadata().keys() == {"format", "modelspec.title", "safegen"}


def test_an_overlay_needs_the_original_layout(tiny_pipeline: Any, tmp_path: Path) -> None:
    source = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.ones(1)}, source)
    names = self_attention_names(tiny_pipeline.unet)
    with pytest.raises(SafegenError, match="no checkpoint in the original layout"):
        overlay_single_file(source, tiny_pipeline, names, tmp_path / "out.safetensors", {})
    assert not (tmp_path / "out.safetensors").exists()


def test_other_families_are_refused() -> None:
    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), layers_per_block=1,
                       down_block_types=("DownBlock2D",) * 2,
                       up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    other = DDPMPipeline(unet=unet, scheduler=DDIMScheduler())
    with pytest.raises(SafegenError, match=r"DDPMPipeline: .* --format diffusers"):
        single_file_tensors(other)


def test_blocks_of_different_depth_are_refused() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{**ONE, "layers_per_block": (1, 2, 2, 2)})
    with pytest.raises(SafegenError, match="different numbers of layers"):
        UNetNames(unet)


def test_weights_without_a_place_are_named() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**ONE)
    for stray in ("encoder_hid_proj.weight", "down_blocks.0.resnets.0.extra.weight"):
        with pytest.raises(SafegenError, match=f"no place for {stray}"):
            UNetNames(unet).original(stray)
