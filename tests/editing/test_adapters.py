"""Editing as a LoRA: PEFT's factors beside the weights, and none left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import safegen
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings, Mixture
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.anatomy import self_attention_names
from safegen.patches.low_rank import LowRankPatch

QUICK = EditSettings.of(
    steps=6,
    unsafe_batch=2,
    warmup_steps=1,
    checkpoint_every=2,
    lora_rank=3,
)


def test_the_patch_is_of_the_rank(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    patch = safegen.edit(tiny_pipeline, tiny_latents, QUICK)
    names = [n for n in self_attention_names(tiny_pipeline.unet) if n.endswith(".weight")]
    assert sorted(patch.differences) == names
    for difference in patch.differences.values():
        assert torch.linalg.matrix_rank(difference.double(), rtol=1e-5) == 3


def test_it_is_a_lora_of_that_rank_without_loss(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    parts = LowRankPatch.of(safegen.edit(tiny_pipeline, tiny_latents, QUICK))
    assert parts.left_out == []
    assert parts.full_rank == 3
    assert parts.error(parts.at_rank(3)) < 1e-3
    assert parts.error(parts.at_rank(2)) > 1e-2


def test_the_patch_does_what_the_factors_did(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    settings = QUICK.changed(ema_decay=0.0)
    run = Edit(tiny_pipeline, tiny_latents, settings)
    z_t, text = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 16)

    def predict() -> torch.Tensor:
        with torch.no_grad():
            output: torch.Tensor = tiny_pipeline.unet(z_t, torch.tensor([5, 500]), text).sample
        return output

    original = predict()
    for record in run.run():
        if record.step == record.steps:
            trained = predict()
    patch = run.patch()
    assert torch.equal(predict(), original)
    safegen.apply(tiny_pipeline, patch)
    # The average decays by min(decay, ...), so with 0 it is the last step's factors.
    torch.testing.assert_close(predict(), trained, rtol=1e-4, atol=1e-5)
    assert (trained - original).abs().max() > 1e-3


def test_the_redirect_loss_falls(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    plain = {
        "interpolation_range": (1.0, 1.0),
        "redirect_mixture": Mixture(),
        "guidance_scale": 1.0,
    }
    settings = QUICK.changed(steps=40, unsafe_batch=6, **plain)
    losses = [record.redirect for record in Edit(tiny_pipeline, tiny_latents, settings).run()]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


def test_it_resumes_to_the_same_bits(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    whole = safegen.edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path / "whole")
    broken = Edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path / "broken").run()
    for _ in range(4):
        next(broken)
    broken.close()
    resumed = safegen.edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path / "broken")
    assert whole.metadata["settings"]["optimisation"]["lora_rank"] == 3
    for name, difference in whole.differences.items():
        assert torch.equal(difference, resumed.differences[name])
    other = QUICK.changed(lora_rank=2)
    with pytest.raises(SafegenError, match="another model, triplets or settings"):
        safegen.edit(build_pipeline(), tiny_latents, other, run_folder=tmp_path / "broken")


def test_half_precision_weights_bear_factors_in_single_precision(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    tiny_pipeline.unet.to(torch.bfloat16)
    patch = safegen.edit(tiny_pipeline, tiny_latents, QUICK)
    assert {value.dtype for value in tiny_pipeline.unet.state_dict().values()} == {torch.bfloat16}
    assert {value.dtype for value in patch.differences.values()} == {torch.float32}


def test_the_optimizer_moves_the_factors_only(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    shapes = {name: p.shape for name, p in tiny_pipeline.unet.named_parameters()}
    edit = Edit(tiny_pipeline, tiny_latents, QUICK)
    running = edit.run()
    next(running)
    wanted = [p for p in tiny_pipeline.unet.parameters() if p.requires_grad]
    assert sum(p.numel() for p in wanted) == sum(3 * sum(shapes[name]) for name in edit.names)


def test_impossible_ranks_are_refused(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    with pytest.raises(SafegenError, match="rank 17 is larger than the weights"):
        safegen.edit(tiny_pipeline, tiny_latents, QUICK.changed(lora_rank=17))


def test_without_peft_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from torch import nn\n"
        "from safegen.editing.adapters import LowRankFactors\n"
        "LowRankFactors(nn.Sequential(nn.Linear(4, 4)), ['0.weight'], 2, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'safegen[lora]'" in done.stderr
