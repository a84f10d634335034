"""Importing the package and asking for help stay light, so that the command line is quick."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import safegen
from safegen.editing.settings import EditSettings
from safegen.models.loading import load_pipeline

HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "onnxruntime",
    "matplotlib",
    "nudenet",
    "ray",
    "werkzeug",
]
COMMANDS = [
    "demo",
    "harden",
    "triplets",
    "edit",
    "apply",
    "export",
    "erase",
    "generate",
    "play",
    "evaluate",
    "attack",
    "release",
    "verify",
    "lab",
    "lab build",
    "lab check",
    "lab path",
]
OF_OTHERS = ["matplotlib", "nudenet", "ray", "torchvision"]
"""Libraries that only some commands need, and that none of those which all need imports itself."""
TELL = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {} if name in sys.modules])))
"""


def heavy_after(code: str, names: list[str] = HEAVY) -> list[str]:
    """Which heavy libraries a new process has imported after running the code."""
    told = TELL.format(names) + code
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_probe_sees_a_heavy_import() -> None:
    assert "onnxruntime" in heavy_after("import onnxruntime")


def test_importing_safegen_is_light() -> None:
    assert heavy_after("import safegen; safegen.__version__; safegen.SafegenError") == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_light(command: str) -> None:
    arguments = ["safegen", *command.split(), "--help"]
    code = f"sys.argv = {arguments}; from safegen.cli import main; main()"
    assert heavy_after(code) == []


def test_help_takes_less_than_a_second_of_the_processor() -> None:
    command = [sys.executable, "-m", "safegen", "--help"]
    subprocess.run(command, check=True, capture_output=True)  # compiles what was never compiled
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "edit" in done.stdout
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 1.0


@pytest.fixture(scope="module")
def places(
    tiny_folder: Path, tiny_latents: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A model, triplets as latents and as pictures, a patch, and where to write."""
    folder = tmp_path_factory.mktemp("places")
    names = {"MODEL": tiny_folder, "LATENTS": folder / "latents.safetensors"}
    names |= {"PATCH": folder / "patch.safetensors", "CSV": folder / "set.csv"}
    tiny_latents.save(names["LATENTS"])
    brief = EditSettings.of(steps=2, unsafe_batch=1, warmup_steps=1)
    pipeline = load_pipeline(str(tiny_folder), device="cpu")
    safegen.edit(pipeline, tiny_latents, brief).save(names["PATCH"])
    rng = np.random.default_rng(0)
    for name in ("unsafe", "censored", "benign"):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    names["CSV"].write_text("unsafe,censored,benign\nunsafe.png,censored.png,benign.png\n")
    return names


@pytest.mark.parametrize(
    ("command", "own"),
    [
        (
            "edit MODEL --triplets LATENTS --steps 1 --unsafe-batch 1 --out OUT.safetensors",
            ["tensorboard"],
        ),
        ("apply MODEL PATCH --out OUT", []),
        ("generate MODEL --prompt cat --steps 1 --out OUT", []),
        ("triplets MODEL --csv CSV --out OUT/latents.safetensors", []),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_command_imports_only_what_it_uses(
    command: str, own: list[str], places: dict[str, Path], tmp_path: Path
) -> None:
    for name, path in {**places, "OUT": tmp_path / "out"}.items():
        command = command.replace(name, str(path))
    code = f"sys.argv = {['safegen', *command.split()]}; from safegen.cli import main; main()"
    assert heavy_after(code, ["tensorboard", *OF_OTHERS]) == own
