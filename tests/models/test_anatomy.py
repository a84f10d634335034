from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, scope_names, self_attention_names
from safegen.models.shipped import CONFIGS, FOLDER

SEPARATE = ["sd1", "sd2", "sdxl", "pixart", "sana"]
"""Families whose blocks have an attention for the picture and another for the text."""
DOUBLE_STREAMS = ("sd3", "flux", "aura-flow", "qwen-image", "flux2")
# As counted by diffusers and transformers for the published weights.
PUBLISHED_SIZES = {
    ("sd1", "unet"): 859_520_964,
    ("sd2", "unet"): 865_910_724,
    ("sd2-base", "unet"): 865_910_724,
    ("sdxl", "unet"): 2_567_463_684,
    ("sd1", "vae"): 83_653_863,
    ("sdxl", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
}


def _full_size(family: str, part: str) -> torch.nn.Module:
    """A network of a shipped configuration without any memory for its weights."""
    import diffusers
    import transformers

    config: dict[str, Any] = json.loads((FOLDER / family / part / "config.json").read_text())
    with torch.device("meta"):
        if "_class_name" in config:
            return getattr(diffusers, config["_class_name"]).from_config(config)  # type: ignore
        kind = getattr(transformers, config["architectures"][0])
        return kind(kind.config_class(**config))  # type: ignore


def _count(network: torch.nn.Module, names: list[str] | None = None) -> int:
    parameters = dict(network.named_parameters())
    return sum(parameters[name].numel() for name in names or parameters)


@pytest.mark.parametrize(("family", "part"), PUBLISHED_SIZES)
def test_shipped_configurations_have_the_published_sizes(family: str, part: str) -> None:
    assert _count(_full_size(family, part)) == PUBLISHED_SIZES[family, part]


def test_stable_diffusion_1_trains_a_seventeenth_of_its_unet() -> None:
    unet = _full_size("sd1", "unet")
    names = self_attention_names(unet)
    # 16 attentions: 5 each of widths 320, 640 and 1280, and one more of 1280; q, k, v without
    # bias, out with.
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    assert _count(unet, names) == sum(4 * w * w + w for w in widths) == 49_574_080
    assert len(names) == 16 * 5


@pytest.mark.parametrize("family", SEPARATE)
def test_every_name_is_self_attention_and_none_is_missing(
    build_family: Callable[..., Any], family: str
) -> None:
    denoiser = denoiser_of(build_family(family))
    names = self_attention_names(denoiser)
    parameters = dict(denoiser.named_parameters())
    assert names == sorted(name for name in parameters if re.search(r"(^|\.)attn1\.", name))
    blocks = {name.split(".attn1.")[0] for name in names}
    projections = {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"}
    if family == "pixart":
        projections |= {"to_q.bias", "to_k.bias", "to_v.bias"}
    assert {(block, name) for block in blocks for name in projections} == {
        tuple(name.split(".attn1.")) for name in names
    }
    assert len(blocks) == {"sd1": 10, "sd2": 10, "sdxl": 11, "pixart": 2, "sana": 2}[family]


def test_the_output_is_the_last_block_and_what_follows_but_for_what_sees_the_text(
    pipeline: Any, family: str
) -> None:
    denoiser = denoiser_of(pipeline)
    own, wide = self_attention_names(denoiser), scope_names(denoiser, "self-attention+output")
    assert scope_names(denoiser, "self-attention") == own
    added = set(wide) - set(own)
    names = (
        "up_blocks", "single_transformer_blocks", "transformer_blocks", "layers", "blocks",
        "single_stream_blocks",
    )  # fmt: skip
    blocks = next(name for name in names if hasattr(denoiser, name))
    last = f"{blocks}.{len(getattr(denoiser, blocks)) - 1}."
    assert set(own) < set(wide)
    assert not [name for name in added if ".attn2." in name or "add_" in name]
    assert {name.split(".")[0] for name in added if not name.startswith(last)} == {
        **{name: {"proj_out", "scale_shift_table"} for name in ("pixart", "sana", "wan")},
        **{name: {"norm_out", "proj_out"} for name in DOUBLE_STREAMS},
        "chroma": {"proj_out"},
        "lumina2": {"norm_out"},
        "z-image": set(),
        "hunyuan-image": {"norm_out", "proj_out"},
        "hunyuan-dit": {"norm_out", "proj_out"},
        "hidream": {"final_layer"},
    }.get(family, {"conv_norm_out", "conv_out"})
    # All weights of their last blocks see image and text tokens alike.
    shared = ("chroma", "lumina2", "flux2", "hunyuan-image")
    assert [name for name in added if name.startswith(last)] or family in shared


@pytest.mark.parametrize("family", SEPARATE)
def test_text_does_not_reach_what_is_trained(build_family: Callable[..., Any], family: str) -> None:
    """Self-attention's own call gets no text, in no block."""
    pipeline = build_family(family)
    from safegen.models.conditioning import encode_prompts
    from safegen.models.denoising import predict

    denoiser = denoiser_of(pipeline)
    modules = dict(denoiser.named_modules())
    seen: list[Any] = []
    blocks = {name.split(".attn1.")[0] for name in self_attention_names(denoiser)}
    hooks = [
        modules[f"{block}.attn1"].register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((*args[1:], kwargs.get("encoder_hidden_states"))),
            with_kwargs=True,
        )
        for block in blocks
    ]
    config: Any = denoiser.config
    z_t = torch.zeros(1, config.in_channels, config.sample_size, config.sample_size)
    with torch.no_grad():
        predict(denoiser, z_t, torch.tensor([10]), encode_prompts(pipeline, ["a cat"]))
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(blocks)
    assert all(each is None for given in seen for each in given)


def test_full_size_transformers(published: dict[str, dict[str, Any]]) -> None:
    from diffusers import PixArtTransformer2DModel, SanaTransformer2DModel

    with torch.device("meta"):
        pixart = PixArtTransformer2DModel(**published["pixart"])
        sana = SanaTransformer2DModel(**published["sana"])
    assert _count(pixart, self_attention_names(pixart)) == 28 * (4 * 1152 * 1152 + 4 * 1152)
    assert _count(sana, self_attention_names(sana)) == 20 * (4 * 2240 * 2240 + 2240)


def test_an_architecture_with_unknown_inputs_is_refused_by_name() -> None:
    from diffusers import PriorTransformer

    with torch.device("meta"):
        prior = PriorTransformer(num_layers=1)
    with pytest.raises(SafegenError, match=r"PriorTransformer: .* is not known, since a pass"):
        self_attention_names(prior)


def test_inspect_reads_configurations_alone(pipeline: Any, tmp_path: Path) -> None:
    """Blocks, counts, what is trained and why, from a folder without any weights."""
    from typer.testing import CliRunner

    from safegen.cli import app

    denoiser = denoiser_of(pipeline)
    place = "unet" if hasattr(pipeline, "unet") else "transformer"
    pipeline.save_config(tmp_path)
    pipeline.components[place].save_config(tmp_path / place)
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if re.search(r"\b(yes|no)\b", line)]
    kinds = ("attention over image tokens alone", "image side of joint attention")
    trained = [row for row in rows if any(kind in row for kind in kinds)]
    assert trained
    assert all(re.search("(to_k|to_q) .* yes ", row) for row in trained)
    assert all(" no " in row for row in rows if row not in trained)
    names = self_attention_names(denoiser)
    assert f"{_count(denoiser, names):,} of {_count(denoiser):,} weights" in result.output
    assert f"{len(names)} tensors" in result.output


def test_all_configurations_are_tested() -> None:
    assert {family for family, _ in PUBLISHED_SIZES} == set(CONFIGS)
