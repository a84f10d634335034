"""What every defense has to do, run through all that are registered."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.defenses import Defense, DefenseIdentity, create_defense, defended
from safegen.errors import SafegenError
from safegen.patches.patch import DifferentBaseWarning

Pictures = Callable[..., np.ndarray]


def state(pipeline: Any) -> dict[str, Any]:
    """All that a pipeline consists of, its weights copied."""
    weights = {
        f"{part}.{name}": value.clone()
        for part in ("unet", "vae", "text_encoder")
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    wanted = {name: p.requires_grad for name, p in pipeline.unet.named_parameters()}
    return {
        "weights": weights,
        "wanted": wanted,
        "components": {name: id(part) for name, part in pipeline.components.items()},
        "attributes": {name for name in vars(pipeline) if "_num" not in name},
        "config": dict(pipeline.config),
        "hooks": (len(pipeline.unet._forward_hooks), len(pipeline.unet._forward_pre_hooks)),
        "unet": set(vars(pipeline.unet)),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in before.keys() - {"weights"}:
        assert before[name] == after[name], name
    assert before["weights"].keys() == after["weights"].keys()
    for name, value in before["weights"].items():
        assert torch.equal(value, after["weights"][name]), name


@pytest.mark.filterwarnings("ignore::safegen.patches.patch.DifferentBaseWarning")
def test_changes_pictures_and_restores_every_bit(
    defense: Defense, tiny_pipeline: Any, pictures: Pictures
) -> None:
    original = pictures(tiny_pipeline)
    before = state(tiny_pipeline)
    with defended(tiny_pipeline, defense) as pipeline:
        first, second = pictures(pipeline), pictures(pipeline)
    assert_same(before, state(tiny_pipeline))
    assert np.array_equal(first, second), "something was left over from the first call"
    assert np.array_equal(original, first) == (defense.identity.name == "none")
    assert np.array_equal(original, pictures(tiny_pipeline))


def test_identity_can_be_recorded(defense: Defense, files: Path) -> None:
    recorded = json.dumps(defense.identity.settings)
    assert str(files) not in recorded
    assert DefenseIdentity(defense.identity.name, json.loads(recorded)) == defense.identity


@pytest.mark.filterwarnings("ignore::safegen.patches.patch.DifferentBaseWarning")
def test_is_taken_off_when_generation_fails(defense: Defense, tiny_pipeline: Any) -> None:
    before = state(tiny_pipeline)
    with pytest.raises(KeyboardInterrupt), defended(tiny_pipeline, defense):
        tiny_pipeline(
            "a cat",
            num_inference_steps=3,
            callback_on_step_end=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
    after = state(tiny_pipeline)
    before["attributes"] = after["attributes"]
    assert_same(before, after)


def test_two_are_taken_off_in_reverse(tiny_pipeline: Any, knives: Any) -> None:
    first = create_defense("sld-max", knives)
    second = create_defense("negative-prompt", knives)
    first.apply(tiny_pipeline)
    second.apply(tiny_pipeline)
    with pytest.raises(SafegenError, match="negative-prompt was applied after sld-max"):
        first.remove(tiny_pipeline)
    second.remove(tiny_pipeline)
    first.remove(tiny_pipeline)
    with pytest.raises(SafegenError, match="sld-max is not applied"):
        first.remove(tiny_pipeline)


def test_edits_of_the_same_weights_are_refused_as_a_whole(tiny_pipeline: Any, files: Path) -> None:
    before = state(tiny_pipeline)
    spec = f"esd:{files}/esd-u.safetensors+safegen:{files}/safegen.safetensors"
    with pytest.raises(SafegenError, match=r"applied already and changes \d+ of the same"):
        create_defense(spec).apply(tiny_pipeline)
    assert_same(before, state(tiny_pipeline))


def test_edits_of_different_weights_add_up_without_a_warning(
    tiny_pipeline: Any, files: Path
) -> None:
    before = state(tiny_pipeline)["weights"]
    edits = [
        create_defense(f"{name}:{files}/{file}.safetensors")
        for name, file in (("esd", "esd-x"), ("safegen", "safegen"))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DifferentBaseWarning)
        for edit in edits:
            edit.apply(tiny_pipeline)
    for edit in edits:
        for name, difference in edit.patch.differences.items():  # type: ignore[attr-defined]
            changed = tiny_pipeline.unet.state_dict()[name]
            assert torch.equal(changed, before[f"unet.{name}"] + difference)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sld-mx", "Did you mean 'sld-max'"),
        ("", "unknown name ''"),
        ("none+", "unknown name ''"),
        ("safegen", "follows a colon"),
        ("none:x", "follows a colon"),
        ("safety-filter:", "nothing follows the colon"),
        ("sld-max", "has to be told what to avoid"),
        ("negative-prompt", "has to be told what to avoid"),
        ("safegen:missing.safetensors", r"missing\.safetensors: no such patch"),
        ("none+filtered:x", "has to come first"),
        ("safety-filter,shift=much", "shift must be a finite number, not 'much'"),
        ("none+pistol", "unknown name 'pistol'"),
    ],
)
def test_a_wrong_spec_says_how_to_mend_it(spec: str, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        create_defense(spec)


def test_listing_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from safegen.defenses import DEFENSES; import safegen.cli.erase; "
        "assert 'sld-max' in DEFENSES.names(); "
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_patch_of_another_method_is_refused(files: Path) -> None:
    with pytest.raises(SafegenError, match="a patch of esd-x, not of safegen; use esd:"):
        create_defense(f"safegen:{files}/esd-x.safetensors")


def test_a_stack_tells_its_parts_in_order(files: Path, knives: Any) -> None:
    stack = create_defense(f"safegen:{files}/safegen.safetensors+sld-max", knives)
    assert stack.identity.name == "safegen+sld-max"
    parts = stack.identity.settings["stack"]
    assert [part["name"] for part in parts] == ["safegen", "sld-max"]
    assert parts[1]["settings"]["guidance_scale"] == 5000


def test_a_plus_joins_an_options_values_or_defenses(knives: Any) -> None:
    spec = "sld-strong,words=a knife+a cat,threshold=0.5+negative-prompt,words=snow+the house"
    stack = create_defense(spec, knives)
    first, second = (part["settings"] for part in stack.identity.settings["stack"])
    assert (first["text"], first["threshold"], first["warmup_steps"]) == ("a knife, a cat", 0.5, 7)
    assert second == {"text": "snow, the house"}
    with pytest.raises(SafegenError, match="momentum must have a scale"):
        create_defense("sld-weak,momentum_scale=2", knives)
