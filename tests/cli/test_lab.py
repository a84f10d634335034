"""``safegen lab``: where models are, and what their builds are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safegen.lab import profile, weights_folder

Safegen = Callable[..., tuple[int, str, str]]


def test_the_folder_is_printed(safegen: Safegen) -> None:
    assert safegen("lab", "path") == (0, f"{weights_folder()}\n", "")


def test_the_second_model_is_built_and_found(
    safegen: Safegen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    monkeypatch.setattr(profile, "LAB_SD3", replace(profile.LAB_SD3, source=folder))
    code, _, said = safegen("lab", "path", "lab-sd3")
    assert code == 2
    assert said.endswith("build them: safegen lab build --model sd3\n")
    few = ("--samples", "2", "--batch", "2", "--scenes", "2")
    options = ("--model", "sd3", "--work", tmp_path / "work", "--out", folder, *few)
    code, said, _ = safegen("lab", "build", *options)
    assert code == 0
    assert "sd3: 2 of 2 pictures, loss " in said
    assert safegen("lab", "path", "lab-sd3") == (0, f"{folder}\n", "")
    monkeypatch.setenv("COLUMNS", "200")  # else the names are broken in two
    code, said, _ = safegen("inspect", "lab-sd3")
    assert code == 0
    assert "transformer_blocks.*.attn2" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("path", "lab-sd4"), "no model 'lab-sd4'; known: lab, lab-sd3; did you mean 'lab-sd3'?"),
        (("build", "--model", "sd2"), "no model 'sd2'; known: sd1, sd3, v-pred"),
        (("build", "--samples", "9"), "--samples: only for --model sd3 and --model v-prediction"),
        (("build", "--stage", "clip", "--stage", "magic"), "--stage magic: unknown stage; known: "),
        (("build", "--out", __file__), "is a file; name a folder"),
        (("build", "--model", "sd3", "--stage", "clip"), "leave out --stage"),
        (("build", "--model", "v-prediction", "--stage", "clip"), "v-prediction has one stage"),
        (("build", "--model", "sd3", "--samples", "0"), "--samples must be a whole number of at"),
    ],
)
def test_what_does_not_fit_is_one_line(
    safegen: Safegen, arguments: tuple[str, ...], message: str
) -> None:
    code, _, said = safegen("lab", *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
