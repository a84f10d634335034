"""Transformers in the original layouts, against diffusers' own reading of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)

from safegen.errors import SafegenError
from safegen.patches.original_layout import save_single_file
from safegen.patches.original_transformer import original_names

PUBLISHED = json.loads((Path(__file__).parents[1] / "models" / "published.json").read_text())
SD3 = PUBLISHED["stabilityai/stable-diffusion-3.5-medium"]["transformer"]
FLUX = PUBLISHED["black-forest-labs/FLUX.1-dev"]["transformer"]


def _narrow(kind: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights by the names and lengths of a network; layouts fuse along the first axis."""
    with torch.device("meta"):
        network = kind(**config)
    generator = torch.Generator().manual_seed(0)

    def values(name: str, shape: torch.Size) -> torch.Tensor:
        # The last layer's second axis says how wide the network is.
        width = shape[1:] if name == "proj_out.weight" else (1,) * (len(shape) - 1)
        return torch.randn(shape[0], *width, generator=generator)

    return {name: values(name, value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "config", "read", "shown"),
    [
        (
            SD3Transformer2DModel,
            SD3,
            convert_sd3_transformer_checkpoint_to_diffusers,
            ["joint_blocks.12.x_block.attn2.qkv.weight", "pos_embed"],
        ),
        (
            FluxTransformer2DModel,
            FLUX | {"num_layers": 2, "num_single_layers": 2},
            convert_flux_transformer_checkpoint_to_diffusers,
            ["double_blocks.1.img_attn.norm.query_norm.scale", "guidance_in.in_layer.bias"],
        ),
    ],
    ids=["sd3.5-medium", "flux"],
)
def test_published_shapes_are_read_back_bit_for_bit(
    kind: Any, config: dict[str, Any], read: Any, shown: list[str]
) -> None:
    before = _narrow(kind, config)
    written = original_names(kind.__name__, before)
    assert {*shown} <= written.keys()
    after = read(dict(written))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("half", [False, True])
def test_diffusers_loads_the_file(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=6, pos_embed_max_size=8, dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )  # fmt: skip
    transformer.save_pretrained(tmp_path / "transformer")
    others = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        **dict.fromkeys((*others, *tokenizers)),
    )
    path = tmp_path / "model.safetensors"
    save_single_file(pipeline, path, {"concept": "squares"}, half=half)
    dtype = torch.float16 if half else torch.float32
    loaded = SD3Transformer2DModel.from_single_file(
        str(path), config=str(tmp_path), subfolder="transformer", dtype=dtype, local_files_only=True
    ).state_dict()
    before = transformer.state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(loaded[name], value.to(dtype)) for name, value in before.items())


def test_weights_without_a_place_are_named() -> None:
    weights = _narrow(FluxTransformer2DModel, FLUX | {"num_layers": 1, "num_single_layers": 1})
    with pytest.raises(SafegenError, match=r"^FluxTransformer2DModel: .* no place for extra\.bias"):
        original_names("FluxTransformer2DModel", weights | {"extra.bias": torch.ones(1)})
