"""Importing the package and asking for help stay light, so that the command line is quick."""

import json
import resource
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "onnxruntime",
    "matplotlib",
    "nudenet",
    "ray",
]
COMMANDS = [
    "demo",
    "triplets",
    "edit",
    "apply",
    "erase",
    "generate",
    "evaluate",
    "lab",
    "lab build",
    "lab check",
]
TELL = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {HEAVY} if name in sys.modules])))
"""


def heavy_after(code: str) -> list[str]:
    """Which heavy libraries a new process has imported after running the code."""
    done = subprocess.run([sys.executable, "-c", TELL + code], capture_output=True, text=True)
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
