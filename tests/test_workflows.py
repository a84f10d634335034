"""The workflows of the repository: their scripts run, call what exists, and trust no input."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from safegen.cli import app

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RECORDING = """#!/usr/bin/env bash
printf '%s\\n' "$@" > called
for word in "$@"; do case "$word" in *tmp*) cat "$word" > key; echo "$word" > key_file;; esac; done
exit "$ENDS"
"""


def steps_of(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def scripts_of(path: Path) -> dict[str, str]:
    return {step["name"]: step["run"] for step in steps_of(path) if "run" in step}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_they_call_exists(path: Path) -> None:
    scripts = "\n".join(scripts_of(path).values())
    names = set(re.findall(r"/safegen (\w+)", scripts))
    assert names
    shown = [
        CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output for name in names
    ]
    options = set(re.findall(r"(?<=[ (])--[a-z-]+", scripts))
    assert {each for each in options if not any(each in text for text in shown)} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_input_becomes_code(path: Path) -> None:
    for script in scripts_of(path).values():
        assert "${{" not in script  # an input may hold anything; it comes by the environment
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    text = path.read_text()
    told = yaml.safe_load(text)
    inputs = set(told[True]["workflow_dispatch"]["inputs"])  # YAML reads 'on' as true
    assert set(re.findall(r"inputs\.(\w+)", text)) == inputs


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run([program, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("code", "patch"), [(0, ""), (1, "a b.safetensors"), (3, "")])
def test_the_release_ends_as_the_decision_does(tmp_path: Path, code: int, patch: str) -> None:
    program = tmp_path / ".venv" / "bin" / "safegen"
    program.parent.mkdir(parents=True)
    program.write_text(RECORDING)
    program.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    environment = {
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(tmp_path / "tmp"),
        "MODEL": "my $(model)",
        "PATCH": patch,
        "POLICY": "",
        "FOLDER": "release",
        "SIGNING_KEY": "-----BEGIN\nsecret",
        "ENDS": str(code),
    }
    script = scripts_of(ROOT / ".github" / "workflows" / "release.yml")["Decide"]
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert called[:2] == ["release", "my $(model)"]
    assert called[4:] == ["--out", "release", *(["--patch", patch] if patch else [])]
    assert (tmp_path / "key").read_text() == "-----BEGIN\nsecret\n"
    assert not Path((tmp_path / "key_file").read_text().strip()).exists()
