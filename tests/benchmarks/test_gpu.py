"""The script for an accelerator, with a small model on the CPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--tiny", "--device", "cpu", "--models", "sd3.5-medium", "--precisions", "bf16"]
UNHURRIED = ["--minutes", "60"]  # a busy machine is no failure


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with few random texts and steps."""
    monkeypatch.setattr("safegen.editing.conditions.RANDOM_TEXTS", 24)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("gpu")
    monkeypatch.setattr(script, "STEPS", 1)
    monkeypatch.setattr(script, "AGREED", 2)
    return script


def test_all_is_measured_and_patches_that_differ_are_told(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    there, here = (str(tmp_path / name) for name in ("there", "here"))
    assert tool.main([*SMALL, *UNHURRIED, "--out", there]) == 0
    found = json.loads(Path(there, "results.json").read_text())
    assert found["distances"] == {"sd3.5-medium": 0.0}
    row = found["rows"]["sd3.5-medium bf16"]
    assert row["note"] == ""
    assert all(row[name] > 0 for name in ("ours", "predicted", "reference"))
    assert len(row["drawing"]) == 2

    patch = Path(there, "patches", "sd3.5-medium.safetensors")
    save_file({name: 2 * value for name, value in load_file(patch).items()}, patch)
    capsys.readouterr()
    assert tool.main([*SMALL, "--minutes", "0", "--out", here, "--compare", there]) == 1
    said = capsys.readouterr().out
    assert "patches differ by 50.00%" in said
    assert "not reached" in said


def test_large_models_are_not_begun_without_an_accelerator(tool: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool.main(["--device", "cpu"])
