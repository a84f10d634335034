"""The options that say how MODEL is loaded, in every command that takes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from safegen.cli import app
from safegen.errors import SafegenError
from safegen.models.options import LoadOptions
from safegen.patches.original_layout import save_single_file

OPTIONS = {"--variant", "--config", "--allow-pickle", "--local-files-only"}
COMMANDS = ["triplets", "edit", "apply", "export", "erase", "generate", "evaluate", "attack"]


def _options(command: str) -> dict[str, Any]:
    found: Any = get_command(app).commands[command]  # type: ignore[attr-defined]
    return {name: parameter for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_load_a_model_have_them_all(command: str) -> None:
    options = _options(command)
    assert options.keys() >= OPTIONS
    defaults = LoadOptions()
    for name in OPTIONS:
        parameter = options[name]
        assert parameter.default in (getattr(defaults, parameter.name), None)


def _generate(*arguments: str | Path) -> None:
    how = ["--prompt", "a cat", "--steps", "2"]
    command: Any = get_command(app)
    command.main(["generate", *map(str, arguments), *how], standalone_mode=False)


def test_they_reach_the_loading(tiny_folder: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
    save_single_file(tiny_pipeline, tmp_path / "model.safetensors", {})
    tiny_pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    prints = []
    for name, given in {
        "folder": [tiny_folder],
        "file": [tmp_path / "model.safetensors", "--config", tiny_folder],
        "variant": [tmp_path / "half", "--variant", "fp16", "--local-files-only"],
    }.items():
        _generate(*given, "--out", tmp_path / name)
        prints.append(json.loads((tmp_path / name / "manifest.json").read_text())["fingerprint"])
    assert len(set(prints)) == 1
    with pytest.raises(SafegenError, match="give --variant fp16"):
        _generate(tmp_path / "half", "--out", tmp_path / "no")
