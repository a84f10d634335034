"""LoRAs: what they train, on which model, what a merge adds, and a patch that is applied again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Task, create_attack
from safegen.attacks._fine_tuning import FolderPictures
from safegen.attacks.lora_on_top import LoraOnTop, LoraOnTopSettings
from safegen.attacks.relearn import Relearn, RelearnSettings
from safegen.attacks.target import Target
from safegen.concepts import Concept
from safegen.defenses import defended
from safegen.defenses.uce import erase
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from safegen.models.factors import low_rank

KNIVES = Concept("knives", "a knife", ("knife",))
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(4)]
FEW = RelearnSettings("unsafe", steps=2, checks=(), learning_rate=1e-2, batch=2, unsafe=2)
LORA = LoraOnTopSettings(rank=2, steps=2, learning_rate=1e-2, batch=2)
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
target_of = partial(tiny_targets.target_of, concept=KNIVES, examples=TASKS, steps=2)


def weights_under(target: Target, attack: Any) -> dict[str, torch.Tensor]:
    """The denoiser's weights, a LoRA's apart, while the goals would be drawn."""
    with defended(target.pipeline, target.defense), attack.against(target):
        return {name: each.clone() for name, each in target.pipeline.unet.state_dict().items()}


@pytest.fixture
def patched(build_pipeline: Callable[..., Any], tmp_path: Path) -> str:
    """Spec of a patch that changes keys and values of texts."""
    erase(build_pipeline(), KNIVES, ["a cat"]).save(tmp_path / "uce.safetensors")
    return f"uce:{tmp_path / 'uce.safetensors'}"


def test_factors_are_what_their_product_adds_to_the_weights(tiny_pipeline: Any) -> None:
    unet = tiny_pipeline.unet
    generator = torch.Generator().manual_seed(0)
    z, text = torch.randn(1, 4, 8, 8, generator=generator), torch.ones(1, 16, 16)
    plain = unet(z, 10, text).sample
    with low_rank(unet, 2, 0) as factors, torch.no_grad():
        assert QUERY in factors.pairs
        queries = [name for name, _ in unet.named_modules() if name.endswith(".to_q")]
        assert len(factors.pairs) == 4 * len(queries)
        assert torch.equal(unet(z, 10, text).sample, plain)  # B is zero
        for _, b in factors.pairs.values():
            b += 0.1 * torch.randn(b.shape, generator=generator)
        beside = unet(z, 10, text).sample
        with factors.off():
            assert torch.equal(unet(z, 10, text).sample, plain)
        changes = factors.changes()
    assert torch.equal(unet(z, 10, text).sample, plain)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name in changes:
                weight += changes[name]
    torch.testing.assert_close(unet(z, 10, text).sample, beside, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(beside, plain, atol=1e-3)


def test_relearning_as_a_lora_leaves_the_weights_and_changes_the_pictures(
    tiny_pipeline: Any,
) -> None:
    target = target_of(tiny_pipeline)
    before = {name: each.clone() for name, each in tiny_pipeline.unet.state_dict().items()}
    attack = Relearn(replace(FEW, lora=2))
    with defended(tiny_pipeline, target.defense), attack.against(target) as strike:
        found = strike(TASKS[:1])
        plain = tiny_pipeline.unet.state_dict()
        assert all(torch.equal(plain[name], each) for name, each in before.items())
    with defended(tiny_pipeline, "none"):
        assert not np.array_equal(found[0].image, target.draw(TASKS[:1])[0].image)
    assert (found[0].passes, found[0].shared) == (12, 12)
    assert all(each.requires_grad for each in tiny_pipeline.unet.parameters())


def test_a_patch_that_is_applied_again_is_added_to_what_was_relearned(
    tiny_pipeline: Any, patched: str
) -> None:
    target = target_of(tiny_pipeline, patched)
    once, twice = (
        weights_under(target, Relearn(replace(FEW, again=again))) for again in (False, True)
    )
    change = target.defense.patch.differences  # type: ignore[attr-defined]
    assert QUERY in change
    for name, weight in once.items():
        expected = weight + change[name] if name in change else weight
        torch.testing.assert_close(twice[name], expected, atol=1e-6, rtol=1e-5)
    attack = Relearn(replace(FEW, again=True))
    with defended(tiny_pipeline, target.defense), attack.against(target) as strike:
        (found,) = strike(TASKS[:1])
    assert found.details["applied_again"] == len(change)


def test_without_a_patch_there_is_nothing_to_apply_again(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline, "negative-prompt")
    attack = Relearn(replace(FEW, again=True))
    with defended(tiny_pipeline, target.defense), attack.against(target) as strike:
        assert strike(TASKS[:1])[0].details["applied_again"] == 0


def test_a_lora_is_trained_on_the_original_and_merged_onto_the_defended_model(
    tiny_pipeline: Any, patched: str, folder: FolderPictures
) -> None:
    attack = LoraOnTop(LORA, folder)
    plain = {name: each.clone() for name, each in tiny_pipeline.unet.state_dict().items()}
    onto = weights_under(target_of(tiny_pipeline), attack)
    target = target_of(tiny_pipeline, patched)
    both = weights_under(target, attack)
    change = target.defense.patch.differences  # type: ignore[attr-defined]
    assert not torch.equal(onto[QUERY], plain[QUERY])
    for name, weight in onto.items():
        expected = weight + change[name] if name in change else weight
        torch.testing.assert_close(both[name], expected, atol=1e-6, rtol=1e-5)
    after = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(after[name], each) for name, each in plain.items())


def test_the_options_make_a_grid() -> None:
    spec = "relearn:unsafe,lora=8,learning_rate=0.001,steps=60,checks=0+60,unsafe=5,again=true"
    made: Any = create_attack(spec, LAB)
    usual = RelearnSettings("unsafe", **LAB.attacks["relearn"])
    told = {"lora": 8, "learning_rate": 1e-3, "steps": 60, "unsafe": 5, "again": True}
    assert made.settings == replace(usual, **told, checks=(0, 60))
    assert made.identity.name == "relearn-unsafe-lora-8-again"
    lora: Any = create_attack("lora-on-top", LAB)
    assert lora == LoraOnTop(LoraOnTopSettings(**LAB.attacks["lora-on-top"]))
    assert (lora.identity.name, lora.identity.side) == ("lora-on-top", "weights")


def test_what_does_not_fit_is_refused(tiny_pipeline: Any) -> None:
    with pytest.raises(SafegenError, match="lora must be a whole number of at least 1, not 0"):
        create_attack("relearn:unsafe,lora=0")
    with pytest.raises(SafegenError, match="rank must be a whole number of at least 1"):
        LoraOnTopSettings(rank=0)
    with pytest.raises(SafegenError, match="learning_rate must be a finite number above 0"):
        LoraOnTopSettings(learning_rate=0.0)
    with pytest.raises(SafegenError, match="lora-on-top:FOLDER"):
        weights_under(target_of(tiny_pipeline), LoraOnTop(LORA))
    none = low_rank(torch.nn.Linear(2, 2), 1, 0)
    with pytest.raises(SafegenError, match="no attention that a LoRA changes"), none:
        pass
