"""Finished models as patches, and pipelines written in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import safegen
from safegen.defenses import create_defense
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.patches.difference import difference
from safegen.patches.folder import save_pipeline


def _change(pipeline: Any, *names: str) -> Any:
    parameters = dict(pipeline.unet.named_parameters())
    for name in names:
        parameters[name].data += 0.25
    return pipeline


@pytest.mark.parametrize(
    ("more", "scope", "outside"),
    [
        (None, "self-attention", 0),
        ("conv_out.weight", "self-attention+output", 1),
        ("conv_in.weight", "all weights", 1),
    ],
)
def test_it_makes_the_other_of_the_base(
    build_pipeline: Callable[..., Any], tmp_path: Path, more: str | None, scope: str, outside: int
) -> None:
    base, finished = build_pipeline(), build_pipeline()
    names = [self_attention_names(base.unet)[0], *filter(None, [more])]
    patch = difference(base, _change(finished, *names))
    assert patch.differences.keys() == set(names)
    settings = {"scope": scope, "outside_self_attention": outside}
    assert (patch.metadata["settings"], patch.metadata["left_out"]) == (settings, [])
    assert patch.metadata["made_from"]["fingerprint"] == fingerprint(finished.unet)
    patch.save(tmp_path / "patch.safetensors")
    safegen.apply(base, tmp_path / "patch.safetensors")
    assert fingerprint(base.unet) == fingerprint(finished.unet)
    defense = create_defense(f"checkpoint:{tmp_path / 'patch.safetensors'}")
    assert defense.identity.settings["settings"] == settings


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_no_difference(build_pipeline: Callable[..., Any], dtype: Any) -> None:
    base, finished = build_pipeline(), build_pipeline().to(dtype).to(torch.float32)
    with pytest.raises(SafegenError, match="the same denoiser as the base"):
        difference(base, finished)
    name = self_attention_names(base.unet)[0]
    assert difference(base, _change(finished, name)).differences.keys() == {name}
    finished = _change(build_pipeline(), name)
    next(finished.text_encoder.parameters()).data += 1
    assert difference(base, finished).metadata["left_out"] == ["text_encoder"]


def test_other_architectures_are_refused(build_pipeline: Callable[..., Any]) -> None:
    base = build_pipeline()
    with pytest.raises(SafegenError, match=r"different architectures: .* is .* in the base"):
        difference(base, build_pipeline(width=24))
    with pytest.raises(SafegenError, match="different architectures: only one of them has"):
        difference(base, build_pipeline(cross_only=True))


def test_writing_in_half_precision_leaves_the_pipeline_alone(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    before, parts = fingerprint(tiny_pipeline.unet), dict(tiny_pipeline.components)
    save_pipeline(tiny_pipeline, tmp_path / "half", half=True)
    assert tiny_pipeline.components == parts
    for name in ("unet", "vae", "text_encoder"):
        assert {value.dtype for value in parts[name].parameters()} == {torch.float32}
    written = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in written.values()} == {torch.float16}
    tiny_pipeline.unet.load_state_dict(written)
    assert fingerprint(tiny_pipeline.unet) == before
