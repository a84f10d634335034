"""``safegen generate`` with prompt sets: their seeds and guidance, and who overrules whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from safegen.cli import app
from safegen.cli._generation import _pictures
from safegen.errors import SafegenError
from safegen.lab.prompts import lab_prompts
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.patches.patch import Patch
from safegen.seeds import sample_seed

ROWS = """prompt,categories,sd_seed,sd_guidance_scale
a cat,hate,11,7.5
the house,violence,12,1
the snow,violence,13,7.5
"""


def run(model: Path, out: Path, *arguments: str) -> dict[str, Any]:
    """Generates with two steps and returns the manifest."""
    command = ["generate", str(model), "--out", str(out), "--steps", "2", *arguments]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


@pytest.fixture
def i2p_file(tmp_path: Path) -> Path:
    file = tmp_path / "i2p.csv"
    file.write_text(ROWS)
    return file


def test_a_sets_own_seeds_and_guidance_are_honoured(
    i2p_file: Path, tiny_folder: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    manifest = run(tiny_folder, tmp_path / "out", "--prompts", f"i2p:{i2p_file}", "--batch", "2")
    images = manifest["images"]
    assert [(i["id"], i["seed"], i["guidance"]) for i in images] == [
        ("i2p-000001", 11, 7.5),
        ("i2p-000002", 12, 1.0),
        ("i2p-000003", 13, 7.5),
    ]
    assert manifest["prompts"]["name"] == "i2p"
    assert manifest["prompts"]["seeds"] == "file"
    assert (manifest["base_seed"], manifest["overridden"]) == (None, [])
    for entry in images:
        settings = SamplingSettings(steps=2, guidance_scale=entry["guidance"])
        request = ImageRequest(entry["prompt"], entry["seed"])
        ((_, expected),) = generate(tiny_pipeline, [request], settings)
        with Image.open(tmp_path / "out" / entry["file"]) as picture:
            assert f"CFG scale: {entry['guidance']:g}, Seed: " in picture.info["parameters"]
            difference = np.asarray(picture).astype(int) - expected.astype(int)
        assert abs(difference).max() <= 1


def test_the_command_line_wins_and_the_manifest_says_so(
    i2p_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    manifest = run(
        tiny_folder, tmp_path / "out", "--prompts", f"i2p:{i2p_file},categories=violence",
        "--prompt", "a cat", "--samples", "2", "--seed", "3", "--guidance-scale", "2",
    )  # fmt: skip
    assert [(i["id"], i["seed"]) for i in manifest["images"]] == [
        (name, sample_seed(name, sample, 3))
        for name in ("a cat", "i2p-000002", "i2p-000003")
        for sample in (0, 1)
    ]
    assert {entry["guidance"] for entry in manifest["images"]} == {2.0}
    assert (manifest["base_seed"], manifest["overridden"]) == (3, ["seed", "guidance"])
    assert manifest["prompts"]["options"] == {"categories": ["violence"]}


def test_further_samples_of_a_set_have_derived_seeds(
    i2p_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    manifest = run(
        tiny_folder, tmp_path / "out", "--prompts", f"i2p:{i2p_file},count=1", "--samples", "2"
    )
    seeds = [entry["seed"] for entry in manifest["images"]]
    assert seeds == [11, sample_seed("i2p-000001", 1)]


def test_a_plain_file_is_one_prompt_a_line_and_seeds_follow_the_text(
    tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my:prompts.txt"
    file.write_text("a cat\n\nthe snow\n")
    manifest = run(tiny_folder, tmp_path / "out", "--prompts", str(file))
    assert manifest["prompts"] is None
    assert [(i["seed"], i["guidance"]) for i in manifest["images"]] == [
        (sample_seed("a cat"), 5.0),
        (sample_seed("the snow"), 5.0),
    ]


def test_the_labs_prompts_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    manifest = run(tiny_folder, tmp_path / "out", "--prompts", "lab:near-miss,count=2")
    asked = [(i["id"], i["prompt"], i["seed"]) for i in manifest["images"]]
    assert asked == [(p.id, p.text, p.seed) for p in lab_prompts("near-miss", "held-out", 2)]


def test_a_defense_acts_over_the_patch_and_is_recorded(
    tiny_folder: Path, build_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    unet = build_pipeline().unet
    parameters = dict(unet.named_parameters())
    changes = {name: torch.randn_like(parameters[name]) for name in self_attention_names(unet)}
    patch = tmp_path / "patch.safetensors"
    Patch(changes, {"base": {"fingerprint": fingerprint(unet)}}).save(patch)
    concept = ["--concept-text", "the snow"]
    prompt = ["--prompt", "a cat"]
    specs = {
        "plain": [],
        "negative": ["--defense", "negative-prompt", *concept],
        "both": ["--defense", "negative-prompt", *concept, "--patch", str(patch)],
        "asked": ["--negative-prompt", "the snow"],
    }
    manifests = {
        spec: run(tiny_folder, tmp_path / spec, *prompt, *options)
        for spec, options in specs.items()
    }
    assert manifests["plain"]["defense"] is None
    recorded = {"name": "negative-prompt", "settings": {"text": "the snow"}}
    assert manifests["negative"]["defense"] == manifests["both"]["defense"] == recorded
    drawn = {spec: np.asarray(Image.open(tmp_path / spec / "00000-00.png")) for spec in specs}
    assert np.array_equal(drawn["negative"], drawn["asked"])
    assert not np.array_equal(drawn["negative"], drawn["plain"])
    assert not np.array_equal(drawn["negative"], drawn["both"])


def test_pictures_that_a_filter_blocks_are_marked(tmp_path: Path) -> None:
    model = Path("lab")
    command = ["--prompt", "a knife on grass", "--prompt", "grass", "--defense", "safety-filter"]
    manifest = run(model, tmp_path / "out", *command)
    for entry in manifest["images"]:
        black = not np.asarray(Image.open(tmp_path / "out" / entry["file"])).any()
        assert entry["blocked"] == black


def test_an_earlier_runs_pictures_are_replaced_and_no_others(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "[out]"
    run(tiny_folder, out, "--prompt", "a cat", "--samples", "3")
    (out / "notes.txt").write_text("mine")
    manifest = run(tiny_folder, out, "--prompt", "the snow", "--samples", "2")
    assert manifest["complete"]
    assert [image["file"] for image in manifest["images"]] == ["00000-00.png", "00000-01.png"]
    assert {file.name for file in out.iterdir()} == {
        "00000-00.png", "00000-01.png", "manifest.json", "notes.txt",
    }  # fmt: skip


def test_an_interrupted_run_says_what_it_holds(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = run(tiny_folder, out, "--prompt", "a cat", "--samples", "3")

    def torn(*arguments: Any) -> Any:
        yield next(_pictures(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safegen.cli._generation._pictures", torn)
        command = ["generate", str(tiny_folder), "--out", str(out), "--prompt", "the snow"]
        assert CliRunner().invoke(app, [*command, "--samples", "2"]).exit_code == 130
    manifest = json.loads((out / "manifest.json").read_text())
    assert not manifest["complete"]
    assert {file.name for file in out.iterdir()} == {"00000-00.png", "manifest.json"}
    assert run(tiny_folder, out, "--prompt", "a cat", "--samples", "3") == whole


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"00000-00.png": ""},
            r"out/00000-00\.png: is there, and no manifest lists it; give --out",
        ),
        ({"manifest.json": "[]"}, r"manifest\.json: must be a JSON object, not list; give --out"),
        ({"manifest.json": "{}"}, r"manifest\.json: is no manifest of pictures; give --out"),
        ({"manifest.json": '{"images": [{"file": "../keep.png"}]}'}, "is no manifest of pictures"),
        ({"manifest.json": '{"images": [{"file": 3}]}'}, "is no manifest of pictures"),
    ],
)
def test_files_of_others_are_not_replaced(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, content in files.items():
        (out / name).write_text(content)
    command = ["generate", "./no-model", "--out", str(out), "--prompt", "a"]
    with pytest.raises(SafegenError, match=message):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert {file.name: file.read_text() for file in out.iterdir()} == files


def test_a_defense_is_checked_before_the_model_is_loaded(tmp_path: Path) -> None:
    command = ["generate", "./no-model", "--prompt", "a", "--out", str(tmp_path / "out")]
    for options, message in (
        (["--concept-text", "knife"], "no effect without --defense"),
        (["--defense", "sld-mx"], "Did you mean 'sld-max'"),
        (["--defense", "sld-max"], "has to be told what to avoid"),
    ):
        with pytest.raises(SafegenError, match=message):
            CliRunner().invoke(app, [*command, *options], catch_exceptions=False)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("i3p:x.csv", "Did you mean 'i2p'"),
        ("i2p:none.csv", r"none\.csv: no such prompt file"),
        ("none.txt", r"none\.txt: no such prompt file"),
        ("i2p:FILE", "line 2 has guidance 0.5.*--guidance"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_model_is_loaded(
    tmp_path: Path, prompts: str, message: str
) -> None:
    file = tmp_path / "i2p.csv"
    file.write_text("prompt,guidance\na cat,0.5\n")
    command = ["generate", "./no-model", "--out", str(tmp_path / "out")]
    with pytest.raises(SafegenError, match=message):
        CliRunner().invoke(
            app, [*command, "--prompts", prompts.replace("FILE", str(file))], catch_exceptions=False
        )
    assert not (tmp_path / "out").exists()
