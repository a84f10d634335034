"""The baselines that edit weights by the concept's text: ESD and UCE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from safegen.cli import app
from safegen.concepts import Concept
from safegen.defenses import create_defense
from safegen.defenses.esd import EsdSettings, EsdTraining, esd_target, trained_names
from safegen.defenses.uce import UceSettings, closed_form, erase
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint
from safegen.patches.patch import Patch


def test_closed_form_is_the_papers_equation() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 5))
    c, g, kept = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.normal(size=(7, 5))
    settings = UceSettings(erase_scale=1.3, preserve_scale=0.2, regularisation=0.7)
    left = settings.regularisation * weight
    right = settings.regularisation * np.eye(5)
    for erased, guide in zip(c, g, strict=True):
        left += settings.erase_scale * np.outer(weight @ guide, erased)
        right += settings.erase_scale * np.outer(erased, erased)
    for each in kept:
        left += settings.preserve_scale * np.outer(weight @ each, each)
        right += settings.preserve_scale * np.outer(each, each)
    expected = left @ np.linalg.inv(right)
    solution = closed_form(*(torch.from_numpy(x) for x in (c, g, kept)), settings)
    np.testing.assert_allclose(weight @ solution.numpy(), expected, rtol=1e-9, atol=1e-10)


def test_uce_turns_the_word_into_the_guide_and_holds_the_preserved(tiny_pipeline: Any) -> None:
    from safegen.models.conditioning import encode_text

    before = fingerprint(tiny_pipeline.unet)
    settings = UceSettings(guide="snow", preserve_scale=1.0, regularisation=1e-4)
    knife = Concept("knife", "knife")
    patch = erase(tiny_pipeline, knife, ["the house"], settings)
    unheld = erase(tiny_pipeline, knife, [], settings)
    assert fingerprint(tiny_pipeline.unet) == before
    assert all(n.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for n in patch.differences)
    projections = [n for n, _ in tiny_pipeline.unet.named_parameters() if "attn2.to_" in n]
    assert len(patch.differences) == len([n for n in projections if "to_k" in n or "to_v" in n])
    name = next(iter(patch.differences))
    weight = tiny_pipeline.unet.state_dict()[name]
    edited = weight + patch.differences[name]
    # The tiny tokenizer spells: position 5 is the last letter of "knife", 4 that of "snow".
    word = encode_text(tiny_pipeline, "knife").hidden[0, 5]
    guide = encode_text(tiny_pipeline, "snow").hidden[0, 4]
    house = encode_text(tiny_pipeline, "the house").hidden[0, 3]
    distance = (edited @ word - weight @ guide).norm() / (weight @ word - weight @ guide).norm()
    assert distance < 0.5
    drift, unheld_drift = (
        (each.differences[name] @ house).norm() / (weight @ house).norm()
        for each in (patch, unheld)
    )
    assert drift < 0.25 * unheld_drift


@pytest.mark.parametrize("variant", ["x", "u"])
def test_esd_changes_only_what_it_should_and_its_loss_falls(
    variant: Any, tiny_pipeline: Any, knives: Concept
) -> None:
    before = {n: p.clone() for n, p in tiny_pipeline.unet.state_dict().items()}
    settings = EsdSettings(variant=variant, iterations=40, learning_rate=3e-3, steps=4, batch=4)
    training = EsdTraining(tiny_pipeline, knives, settings)
    with pytest.raises(SafegenError, match="has not ended"):
        training.patch()
    losses = []
    for record in training.run():
        losses.append(record.loss)
        if record.iteration == settings.iterations:
            during = {n: p.clone() for n, p in tiny_pipeline.unet.state_dict().items()}
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    changed = {n for n, value in during.items() if not torch.equal(value, before[n])}
    patch = training.patch()
    assert changed <= set(patch.differences) == set(training.names)
    if variant == "x":
        assert changed
        assert all(".attn2." in name for name in patch.differences)
    else:
        assert not any(".attn2." in name for name in patch.differences)
        assert any(".attn1." in name for name in changed)
        assert any(".resnets." in name for name in changed)
        outside = ("time_embedding.", "conv_out.", "conv_norm_out.")
        assert not any(name.startswith(outside) for name in patch.differences)
    after = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert patch.metadata["method"] == f"esd-{variant}"


def test_esd_learns_from_prompts_beside_the_words(
    build_pipeline: Callable[..., Any], knives: Concept
) -> None:
    settings = EsdSettings(iterations=3, steps=2, batch=8, learning_rate=1e-2)
    patches = []
    for prompts in ([], ["a cat next to a knife"]):
        training = EsdTraining(build_pipeline(), knives, settings, prompts)
        list(training.run())
        patches.append(training.patch())
    told = [patch.metadata["settings"]["words"] for patch in patches]
    assert told == [[*knives.words], [*knives.words, "a cat next to a knife"]]
    first, second = (patch.differences for patch in patches)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_esd_is_reproducible_and_restores_when_broken_off(
    build_pipeline: Callable[..., Any], knives: Concept
) -> None:
    settings = EsdSettings(iterations=2, learning_rate=1e-2, steps=3, batch=2)
    patches = []
    for _ in range(2):
        training = EsdTraining(build_pipeline(), knives, settings)
        list(training.run())
        patches.append(training.patch())
    first, second = patches
    assert all(torch.equal(first.differences[n], second.differences[n]) for n in first.differences)
    pipeline = build_pipeline()
    before = fingerprint(pipeline.unet)
    run = EsdTraining(pipeline, knives, settings).run()
    next(run)
    assert fingerprint(pipeline.unet) != before
    run.close()
    assert fingerprint(pipeline.unet) == before
    assert all(p.requires_grad and p.grad is None for p in pipeline.unet.parameters())


def test_esd_target_moves_away_from_the_concept() -> None:
    empty, concept = torch.tensor([1.0]), torch.tensor([3.0])
    assert esd_target(empty, concept, 1.0).item() == -1.0
    assert esd_target(empty, concept, 0.5).item() == 0.0


def test_the_published_settings_are_the_defaults() -> None:
    settings = EsdSettings()
    assert (settings.iterations, settings.learning_rate, settings.steps) == (1000, 1e-5, 50)
    assert (settings.negative_guidance, settings.start_guidance, settings.batch) == (1, 3, 1)
    assert UceSettings() == UceSettings(
        guide=" ", erase_scale=1.0, preserve_scale=0.1, regularisation=0.5
    )


def test_what_does_not_fit_is_refused(build_pipeline: Callable[..., Any], knives: Concept) -> None:
    half = build_pipeline()
    half.unet.to(torch.float16)
    with pytest.raises(SafegenError, match="float32"):
        EsdTraining(half, knives)
    with pytest.raises(SafegenError, match="Linear: this method is made for"):
        trained_names(torch.nn.Linear(2, 2), "x")
    with pytest.raises(SafegenError, match="ESD: variant must be x or u"):
        EsdSettings(variant="y")  # type: ignore[arg-type]
    with pytest.raises(SafegenError, match="lower the learning rate"):
        list(EsdTraining(build_pipeline(), knives, EsdSettings(learning_rate=1e30)).run())


def test_concepts() -> None:
    assert Concept("knives").text == "knives"
    for text in (" ", ","):
        with pytest.raises(SafegenError, match="must not be empty"):
            Concept("nothing", text)


SHIFT = """
from safegen.defenses.erasing import load_patch_defense, patch_metadata
from safegen.patches.patch import Patch

class Shift:
    def __init__(self, *, amount: float = 1.0):
        self.amount = amount

    def erase(self, pipeline, concept, on_progress):
        on_progress(1, 1)
        name, weight = next(iter(pipeline.unet.named_parameters()))
        settings = {"words": list(concept.words), "amount": self.amount}
        metadata = patch_metadata(pipeline, "shift", concept.name, settings)
        return Patch({name: self.amount + 0 * weight.detach()}, metadata)

def shift(patch):
    return load_patch_defense("shift", patch)
"""
SHIFT_ENTRIES = """
[safegen.erasers]
shift = shift_of_weights:Shift
[safegen.defenses]
shift = shift_of_weights:shift
"""


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("esd-x,iterations=2,steps=2", {"variant": "x", "iterations": 2, "batch": 1}),
        ("esd-u,iterations=2,steps=2", {"variant": "u", "learning_rate": 1e-5}),
        ("uce,preserved=a cat+a house", {"guide": " ", "preserved": ["a cat", "a house"]}),
        ("duo,steps=1,pairs=2,rank=2,batch=2", {"beta": 500.0, "pairs": 2}),
        ("rece,rounds=1", {"rounds": 1, "regularisation": 0.1, "preserved": []}),
        ("shift,amount=2", {"amount": 2.0}),
    ],
)
def test_the_command_writes_the_patch_of_any_eraser(
    method: str,
    settings: dict[str, Any],
    tiny_folder: Path,
    tmp_path: Path,
    installed: Callable[..., Any],
) -> None:
    out = tmp_path / "patch.safetensors"
    arguments = ["erase", str(tiny_folder), "--method", method, "--out", str(out)]
    with installed("shift_of_weights", SHIFT, SHIFT_ENTRIES):
        named = ["--concept-text", "knife", "--concept", "blades"]
        result = CliRunner().invoke(app, [*arguments, *named])
        assert result.exit_code == 0, result.output
        patch = Patch.load(out)
        name = method.partition(",")[0]
        assert create_defense(f"{name.partition('-')[0]}:{out}").identity.name == name
    assert patch.metadata["method"] == name
    recorded = patch.metadata["settings"]
    assert recorded == {**recorded, **settings, "words": ["knife"]}
    assert patch.metadata["concept"] == "blades"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("sed", "unknown name 'sed' among erasers"),
        ("uce", "say what to erase"),
        ("uce,steps=3", "unknown option 'steps'; known: guide, erase_scale"),
        ("esd-x,steps=few", "steps must be a whole number, not 'few'"),
        ("esd-x:PATCH", "too many positional arguments"),
    ],
)
def test_the_command_says_what_is_wrong(
    method: str, message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    arguments = [
        "erase",
        str(tiny_folder),
        "--method",
        method,
        "--out",
        str(tmp_path / "p.safetensors"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SafegenError)
    assert message in str(result.exception)
