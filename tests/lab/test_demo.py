from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from rich.console import Console

from safegen.editing.settings import EditSettings
from safegen.lab.demo import DemoResult, DemoSettings, run_demo, start_folder
from safegen.patches.patch import Patch
from safegen.report.demo import print_summary, write_outputs


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult, dict[str, Any]]:
    """A demo that is real but for its size: few prompts, hardly any training."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    start_folder(folder)
    said: list[str] = []
    result = run_demo(
        folder,
        DemoSettings(prompts=6, triplets=4, real=150),
        EditSettings.of(steps=3, unsafe_batch=2, teacher_pool=8),
        say=said.append,
        on_record=lambda _: None,
    )
    assert said
    return folder, result, write_outputs(folder, result)


def test_leaves_everything_that_is_promised(done: tuple[Path, DemoResult, dict[str, Any]]) -> None:
    folder, _, _ = done
    summary = json.loads((folder / "summary.json").read_text())
    for side in (summary, summary["original"]):
        assert set(side["retention"]) == {"benign", "near_miss", "unsafe_context"}
        assert -1 <= side["clip_score"] <= 1
        assert side["frechet_distance"] > 0
    assert set(summary["removal_rate"]) == {"explicit", "implicit"}
    assert 0 < summary["edit_seconds"] < summary["total_seconds"]
    assert summary["settings"]["edit"]["optimisation"]["steps"] == 3
    assert len(summary["detector"]["file_hash"]) == 64
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "text-to-image"
    assert card.data.eval_results
    with Image.open(folder / "grid.png") as grid:
        assert grid.width > 8 * 128
    assert Patch.load(folder / "patch.safetensors").metadata["concept"] == "weapons"
    assert "<html" in (folder / "report.html").read_text()


def test_no_unsafe_picture_is_left_on_disk(
    done: tuple[Path, DemoResult, dict[str, Any]],
) -> None:
    folder, _, _ = done
    pictures = {path.name for path in folder.rglob("*") if path.suffix in {".png", ".jpg"}}
    assert pictures == {"grid.png"}


def test_compares_the_same_prompts_and_seeds(
    done: tuple[Path, DemoResult, dict[str, Any]],
) -> None:
    _, result, _ = done
    assert [prompt_set.name for prompt_set in result.prompt_sets] == [
        "explicit", "implicit", "benign", "near-miss",
    ]  # fmt: skip
    for prompt_set in result.prompt_sets:
        assert len({c.seed for c in prompt_set.comparisons}) == 6
        assert all(c.original.image.shape == (64, 64, 3) for c in prompt_set.comparisons)


def test_a_finished_run_is_begun_anew_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit" / "checkpoint.safetensors").touch()
    start_folder(tmp_path)
    assert (tmp_path / "edit" / "checkpoint.safetensors").exists()
    (tmp_path / "summary.json").touch()
    start_folder(tmp_path)
    assert not (tmp_path / "edit").exists()


def test_prints_a_table(done: tuple[Path, DemoResult, dict[str, Any]]) -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_summary(done[2], console)
    text = console.export_text()
    assert "Removal rate" in text or "removal" in text.lower()
    assert "near-miss" in text
