from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import safegen
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.models.anatomy import denoiser_of, fingerprint, self_attention_names
from safegen.patches.patch import DifferentBaseWarning, Patch, base_of


def _patch(pipeline: Any, scale: float = 0.1) -> Patch:
    generator = torch.Generator().manual_seed(0)
    parameters = dict(pipeline.unet.named_parameters())
    differences = {
        name: scale * torch.randn(parameters[name].shape, generator=generator)
        for name in self_attention_names(pipeline.unet)
    }
    base = {"name": "tiny", "class": "UNet2DConditionModel",
            "fingerprint": fingerprint(pipeline.unet)}  # fmt: skip
    return Patch(differences, {"base": base, "concept": "test"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_remove_restores_every_bit(tiny_pipeline: Any, dtype: torch.dtype) -> None:
    tiny_pipeline.unet.to(dtype)
    before = {n: w.clone() for n, w in tiny_pipeline.unet.state_dict().items()}
    patch = _patch(tiny_pipeline)
    safegen.apply(tiny_pipeline, patch)
    between = tiny_pipeline.unet.state_dict()
    assert all(not torch.equal(before[name], between[name]) for name in patch.differences)
    safegen.remove(tiny_pipeline, patch)
    after = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(after[name].dtype == dtype for name in after)


def test_survives_the_disk(tiny_pipeline: Any, tmp_path: Path) -> None:
    patch = _patch(tiny_pipeline)
    patch.save(tmp_path / "p.safetensors")
    loaded = Patch.load(tmp_path / "p.safetensors")
    assert loaded.metadata == patch.metadata
    assert all(torch.equal(patch.differences[n], loaded.differences[n]) for n in patch.differences)


def test_twice_is_refused_and_so_is_removing_what_is_not_there(tiny_pipeline: Any) -> None:
    patch = _patch(tiny_pipeline)
    with pytest.raises(SafegenError, match="not applied"):
        safegen.remove(tiny_pipeline, patch)
    safegen.apply(tiny_pipeline, patch)
    with pytest.raises(SafegenError, match="applied already"):
        safegen.apply(tiny_pipeline, patch)


def test_a_patch_of_the_same_weights_is_not_taken_for_another(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    first, second = _patch(tiny_pipeline), _patch(tiny_pipeline, 0.2)
    first.save(tmp_path / "first.safetensors")
    second.save(tmp_path / "second.safetensors")
    safegen.apply(tiny_pipeline, tmp_path / "first.safetensors")
    with pytest.raises(SafegenError, match=r"second\.safetensors is not applied.*first\.safe"):
        safegen.remove(tiny_pipeline, tmp_path / "second.safetensors")
    safegen.remove(tiny_pipeline, first)
    with pytest.raises(SafegenError, match=r"the patch of test .* applied: no patch"):
        safegen.remove(tiny_pipeline, first)


def test_a_base_has_the_same_name_on_every_machine(tiny_pipeline: Any, tiny_folder: Path) -> None:
    for source, name in (
        (str(tiny_folder), "StableDiffusionPipeline"),
        ("someone/model", "someone/model"),
        (str(weights_folder()), "lab"),
    ):
        tiny_pipeline.register_to_config(_name_or_path=source)
        assert base_of(tiny_pipeline) == {
            "name": name,
            "class": "UNet2DConditionModel",
            "fingerprint": fingerprint(tiny_pipeline.unet),
        }


def test_another_architecture_is_refused_and_left_alone(
    tiny_pipeline: Any, build_pipeline: Callable[..., Any]
) -> None:
    wide = build_pipeline(width=24)
    before = fingerprint(denoiser_of(wide))
    with pytest.raises(SafegenError, match="another architecture"):
        safegen.apply(wide, _patch(tiny_pipeline))
    assert fingerprint(denoiser_of(wide)) == before


def test_another_checkpoint_gets_the_difference_and_a_warning(
    tiny_pipeline: Any, build_pipeline: Callable[..., Any]
) -> None:
    patch, other = _patch(tiny_pipeline), build_pipeline(seed=3)
    before = {n: w.clone() for n, w in other.unet.state_dict().items()}
    with pytest.warns(DifferentBaseWarning, match="made on tiny"):
        safegen.apply(other, patch)
    for name, difference in patch.differences.items():
        torch.testing.assert_close(other.unet.state_dict()[name], before[name] + difference)


@pytest.mark.filterwarnings("error")
def test_the_same_checkpoint_in_half_precision_is_no_other(
    tiny_pipeline: Any, build_pipeline: Callable[..., Any]
) -> None:
    patch, half = _patch(tiny_pipeline), build_pipeline()
    half.unet.to(torch.float16)
    safegen.apply(half, patch)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_patch_that_changes_nothing_or_breaks_all_is_refused(
    tiny_pipeline: Any, value: float
) -> None:
    patch = _patch(tiny_pipeline)
    bad = {name: torch.full_like(d, value) for name, d in patch.differences.items()}
    with pytest.raises(SafegenError):
        Patch(bad)
