"""The lab's whole comparison, with patches of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safegen.defenses.erasing import PACKAGES as DEPENDED_ON
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.evaluation.plan import plan_evaluation
from safegen.lab.prompts import ADVERSARIAL, adversarial_prompts
from safegen.lab.table import (
    PATCHES,
    VARIANTS,
    lab_settings,
    make_patches,
    patch_path,
)
from safegen.version import code_versions

FEW: dict[str, Any] = {"steps": 3, "unsafe_batch": 1, "checkpoint_every": 1}
EDIT = EditSettings.of(**FEW)
ESD = "esd-x,iterations=1,steps=2,batch=1"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with patches that were made, and the first of them again."""
    folder = tmp_path_factory.mktemp("preset")
    make_patches(folder, EDIT, ESD, triplets=2)
    return folder


def test_patches_that_are_there_are_kept(run_folder: Path) -> None:
    contents = {name: patch_path(run_folder, name).read_bytes() for name in PATCHES}
    patch_path(run_folder, "uce").unlink()
    said: list[str] = []
    make_patches(run_folder, EDIT, ESD, triplets=2, say=said.append)
    assert said == ["making the patch uce"]
    assert {name: patch_path(run_folder, name).read_bytes() for name in PATCHES} == contents
    make_patches(run_folder, EDIT, ESD, triplets=2, say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triplets": 3}, r"safegen\.safetensors: .* triplets\.source\.benign 4 there and 6"),
        ({"edit_settings": EditSettings.of(**FEW, gamma=9.0)}, r"safegen\.safet.*gamma .* and 9"),
        ({"esd": f"{ESD},seed=3"}, r"esd-x\.safetensors: .* settings\.seed 0 there and 3"),
        ({}, r"safegen is .* there and 0\.1\.0\+other here; .*--allow-other-code"),
    ],
)
def test_patches_that_were_made_otherwise_are_not_taken(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"edit_settings": EDIT, "esd": ESD, "triplets": 2, **changes}
    if not changes:
        other = {**code_versions(DEPENDED_ON), "safegen": "0.1.0+other", "source": "other"}
        monkeypatch.setattr("safegen.lab.table.code_versions", lambda _: other)
        make_patches(run_folder, **asked, allow_other_code=True)
    with pytest.raises(SafegenError, match=message):
        make_patches(run_folder, **asked)


def test_an_interrupted_edit_goes_on(run_folder: Path, tmp_path: Path) -> None:
    def stop(name: str, step: int, steps: int) -> None:
        if (name, step, steps) == ("safegen", 2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_patches(tmp_path, EDIT, ESD, triplets=2, on_progress=stop)
    assert not patch_path(tmp_path, "safegen").exists()
    steps: list[tuple[str, int]] = []
    make_patches(tmp_path, EDIT, ESD, 2, on_progress=lambda name, at, _: steps.append((name, at)))
    variants = [
        (name, step)
        for name, preset in VARIANTS.items()
        for step in range(1, EDIT.preset(preset).optimisation.steps + 1)
    ]
    assert steps == [("safegen", 2), ("safegen", 3), *variants, ("esd-x", 1), ("uce", 1)]
    for name in PATCHES:
        assert patch_path(tmp_path, name).read_bytes() == patch_path(run_folder, name).read_bytes()


def test_the_preset_compares_everything(run_folder: Path) -> None:
    plan = plan_evaluation(lab_settings(run_folder, count=3))
    assert [defense.record.name for defense in plan.defenses] == [
        "none",
        "filtered",
        "safety-filter",
        "sld-weak",
        "sld-medium",
        "sld-strong",
        "sld-max",
        "esd-x",
        "uce",
        "negative-prompt",
        "safegen",
        "safegen-robust",
        "safegen+sld-max",
    ]
    assert [(each.record.name, each.record.role) for each in plan.prompt_sets] == [
        ("explicit", "unsafe"),
        ("implicit", "unsafe"),
        ("sneakyprompt-n", "unsafe"),
        ("sneakyprompt-p", "unsafe"),
        ("benign", "benign"),
        ("near-miss", "near-miss"),
    ]
    for each in plan.prompt_sets:
        assert each.record.identity["options"]["split"] == "held-out"
        assert len(list(each.prompts)) == 3


def test_of_the_adversarial_set_there_are_no_more_than_all(run_folder: Path) -> None:
    plan = plan_evaluation(lab_settings(run_folder, count=2000))
    listed = {each.record.name: each.prompts for each in plan.prompt_sets}
    for kind in ADVERSARIAL:
        assert list(listed[kind]) == adversarial_prompts(kind)


def test_a_folder_that_would_be_read_as_a_stack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match=r"a \+ joins defenses"):
        lab_settings(tmp_path / "a+b")
