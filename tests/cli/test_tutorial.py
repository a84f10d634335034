"""docs/tutorial.md, run as it stands on a tiny model, with few steps added."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from safegen.errors import SafegenError

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
FEWER = {
    "edit": ["--steps", "2", "--unsafe-batch", "1", "--warmup-steps", "1"],
    "generate": ["--steps", "2"],
    "evaluate": ["--steps", "2"],
}
"""Options added to a command, for a model that is drawn and trained in a moment."""
ENDS = {"release": 3}
"""Exit codes other than 0."""


class Block(NamedTuple):
    """A fenced block: its language, the file that it shows (or none), and its text."""

    language: str
    file: str
    text: str


def blocks() -> list[Block]:
    pattern = r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```'
    found = re.findall(pattern, TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def write_pictures(table: Path) -> None:
    """Writes the pictures that the CSV names."""
    rng = np.random.default_rng(0)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            for name in (row["unsafe"], row["censored"], row["benign"]):
                path = table.parent / name
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)


def write_detector(path: Path) -> None:
    """Writes a classifier of two labels that finds the second nowhere."""
    weights = numpy_helper.from_array(np.array([[1, -1]] * 3, np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["means"], axes=(2, 3), keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["scores"]),
        ],
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 3, 224, 224))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_tutorial_runs(
    safegen: Callable[..., tuple[int, str, str]], tiny_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, "model")
    write_detector(Path("detector.onnx"))
    said: dict[str, str] = {}
    python = ""
    for block in blocks():
        if block.file:
            steps = "steps: 2\n" if block.file == "policy.yaml" else ""
            Path(block.file).write_text(block.text + steps)
            if block.file.endswith(".csv"):
                write_pictures(Path(block.file))
        elif block.language == "python":
            python += block.text
        else:
            said |= dict(
                run(safegen, line) for line in block.text.replace("\\\n", " ").splitlines()
            )
    check(said, python)


def run(safegen: Callable[..., tuple[int, str, str]], line: str) -> tuple[str, str]:
    """Runs a line of the tutorial, and returns the name of its command and what that printed."""
    program, name, *arguments = shlex.split(line)
    if program != "safegen":
        subprocess.run([program, name, *arguments], check=True, capture_output=True)
        return program, ""
    code, out, complained = safegen(name, *arguments, *FEWER.get(name, []))
    assert code == ENDS.get(name, 0), f"{line}: {out} {complained}"
    return name, out


def check(said: dict[str, Any], python: str) -> None:
    """Checks what the commands left."""
    assert "an edit trains" in said["inspect"]
    assert "wrote patch.safetensors" in said["edit"]
    assert len(list(Path("drawn").glob("*.png"))) == 1
    assert "safegen" in Path("evaluation/table.md").read_text()
    assert said["release"].splitlines()[-1] == "decision: not enough evidence"
    assert "release: verifies" in said["verify"]
    with pytest.raises(SafegenError, match="did not pass"):
        exec(python, {})
