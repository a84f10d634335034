from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.editing.latents import TripletLatents
from safegen.patches.patch import Patch

Safegen = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def edited(
    safegen: Safegen,
    tiny_folder: Path,
    tiny_latents: TripletLatents,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with triplets and the patch that the command line made from them."""
    folder = tmp_path_factory.mktemp("edited")
    tiny_latents.save(folder / "triplets.safetensors")
    code, printed, error = safegen(
        "edit", tiny_folder, "--triplets", folder / "triplets.safetensors", "--steps", "4",
        "--unsafe-batch", "2", "--out", folder / "patch.safetensors", "--concept", "squares",
    )  # fmt: skip
    assert code == 0, error
    assert "no other" in printed
    assert "step: 4 of 4" in error
    return folder


def test_apply_writes_a_pipeline_that_diffusers_loads(
    safegen: Safegen, edited: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    out = tmp_path / "hardened"
    code, _, error = safegen("apply", tiny_folder, edited / "patch.safetensors", "--out", out)
    assert code == 0, error
    hardened = StableDiffusionPipeline.from_pretrained(out).unet.state_dict()
    original = StableDiffusionPipeline.from_pretrained(tiny_folder).unet.state_dict()
    assert not [file for file in out.rglob("*.json") if "name_or_path" in file.read_text()]
    changed = {name for name in original if not (original[name] == hardened[name]).all()}
    assert changed
    assert all(".attn1." in name for name in changed)
    again, _, refusal = safegen("apply", tiny_folder, edited / "patch.safetensors", "--out", out)
    assert again == 2
    assert "exists already" in refusal


def test_generate_writes_pictures_and_a_manifest(
    safegen: Safegen, edited: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    common = ["--prompt", "a cat", "--prompt", "the snow", "--samples", "2", "--steps", "2"]
    plain, hardened = tmp_path / "plain", tmp_path / "hardened"
    unpatched, _, _ = safegen("generate", tiny_folder, *common, "--out", plain, "--plain-kernels")
    assert unpatched == 0
    code, _, error = safegen(
        "generate", tiny_folder, *common, "--out", hardened,
        "--patch", edited / "patch.safetensors", "--batch", "1",
    )  # fmt: skip
    assert code == 0, error
    manifest = json.loads((hardened / "manifest.json").read_text())
    assert len(manifest["images"]) == 4
    assert len({entry["seed"] for entry in manifest["images"]}) == 4
    for entry in manifest["images"]:
        pictures = [np.asarray(Image.open(f / entry["file"])) for f in (plain, hardened)]
        assert pictures[0].shape == (16, 16, 3)
        with Image.open(plain / entry["file"]) as picture:
            parameters = picture.info["parameters"]
        assert parameters.startswith(entry["prompt"])
        assert f"Seed: {entry['seed']}, Size: 16x16" in parameters
    assert any(
        (plain / e["file"]).read_bytes() != (hardened / e["file"]).read_bytes()
        for e in manifest["images"]
    )


def test_dry_run_writes_nothing(
    safegen: Safegen, edited: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    code, printed, error = safegen(
        "edit", tiny_folder, "--triplets", edited / "triplets.safetensors",
        "--out", tmp_path / "p.safetensors", "--dry-run", "--unsafe-batch", "2",
        "--preset", "robust",
    )  # fmt: skip
    assert code == 0, error
    assert "trained weights" in printed
    assert re.search(r"\(steps [\d,]+, rehearsals [\d,]+", printed)
    assert "rehearsal_share: 0.8\n" in printed
    (rehearsed,) = re.findall(r"rehearsed fine-tuning\W+(\d+) MiB\W+(\d+) MiB", printed)
    assert rehearsed[0] == rehearsed[1]
    assert list(tmp_path.iterdir()) == []


def test_a_known_concept_is_probed_by_its_detector(
    safegen: Safegen, edited: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    edit = ["edit", tiny_folder, "--triplets", edited / "triplets.safetensors", "--steps", "2",
            "--out", tmp_path / "p.safetensors", "--concept"]  # fmt: skip
    (tmp_path / "dots.yaml").write_text("name: dots\ndetector: lab\n")
    code, _, error = safegen(*edit, tmp_path / "dots.yaml")
    assert code == 2
    assert "no unsafe picture to probe with" in error
    (tmp_path / "dots.yaml").write_text("name: dots\n")
    code, _, error = safegen(*edit, tmp_path / "dots.yaml")
    assert code == 0, error
    assert "no probes of" in error
    assert Patch.load(tmp_path / "p.safetensors").metadata["concept"] == "dots"
    for target, message in (("removed>=1", "is no target"), ("removal>=1", "no probe of 'dots'")):
        code, _, error = safegen(*edit, "dots", "--until", target)
        assert (code, message in error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "MODEL", "--out", "OUT"], "no prompt given"),
        (["generate", "MODEL", "--prompts", "missing.txt", "--out", "OUT"], "missing.txt"),
        (["generate", "MODEL", "--prompt", "a", "--out", "MODEL"], "is read by this command"),
        (["apply", "MODEL", "MODEL/model_index.json", "--out", "MODEL/unet"], "exists already"),
        (["generate", "./missing", "--prompt", "a", "--out", "OUT"], "no such model folder"),
        (["apply", "MODEL", "missing.safetensors", "--out", "OUT"], "no such file"),
        (
            ["edit", "MODEL", "--triplets", "x", "--out", "OUT", "--detector", "lab"],
            "--detector is for",
        ),
        (
            [
                "edit",
                "MODEL",
                "--triplets",
                "x",
                "--out",
                "OUT",
                "--run-folder",
                "MODEL/model_index.json",
            ],
            "model_index.json: is a file; name a folder",
        ),
        (["generate", "missing", "--prompt", "a", "--out", "OUT"], "and no hub id (OWNER/NAME)"),
        (["edit", "MODEL", "--triplets", "no.safetensors", "--out", "OUT"], "no such file"),
        (
            ["edit", "MODEL", "--triplets", "x", "--objective", "magic", "--out", "OUT"],
            "--objective must be exact or paper, not 'magic'",
        ),
        (
            [
                "edit",
                "MODEL",
                "--triplets",
                "x",
                "--objective",
                "paper",
                "--preset",
                "robust",
                "--out",
                "OUT",
            ],
            "--preset robust changes what --objective paper publishes",
        ),
        (["edit", "MODEL", "--triplets", "x", "--guidance-scale", "nan", "--out", "OUT"], "finite"),
        (["edit", "MODEL", "--triplets", "OUT", "--out", "OUT"], "is read by this command"),
        (["edit", "MODEL", "--triplets", "x", "--out", "MODEL"], "is read by this command"),
        (["edit", "MODEL", "--triplets", "x", "--out", "MODEL/unet"], "unet: is a folder"),
        (["edit", "MODEL", "--triplets", "x", "--out", "MODEL/model_index.json/p"], "is a file"),
        (["triplets", "MODEL", "--csv", "OUT", "--out", "OUT"], "is read by this command"),
        (
            ["export", "MODEL", "OUT", "--format", "patch", "--out", "OUT"],
            "is read by this command",
        ),
        (["erase", "MODEL", "--method", "uce", "--out", "MODEL"], "is read by this command"),
        (
            ["edit", "MODEL", "--triplets", "x", "--preset", "strong", "--out", "OUT"],
            "unknown preset 'strong'; known: robust",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    safegen: Safegen, arguments: list[str], message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = {"MODEL": str(tiny_folder), "OUT": str(out)}
    code, _, error = safegen(
        *[re.sub("MODEL|OUT", lambda m: places[m[0]], each) for each in arguments]
    )
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0
    assert not out.exists()
