"""The card of an export: figures of the patch that was measured, and of no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.patches.patch import Patch
from safegen.report.export_card import export_card
from safegen.report.records import BenignFeatures, PromptSetResult, RunFacts
from safegen.report.summary import build_summary, write_summary
from safegen.report.tables import write_summary as write_table
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import Interval

SETTINGS = {"steps": 400, "strengths": [0.2, 1.6], "benign_batch": None}


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """A patch file."""
    path = tmp_path / "weapons.safetensors"
    Patch({"a.weight": torch.ones(2, 2)}, {"concept": "weapons", "settings": SETTINGS}).save(path)
    return path


@pytest.fixture
def demo(
    tmp_path: Path, facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures
) -> Path:
    """The summary of the demo that made it."""
    made = replace(facts, settings={"edit": SETTINGS})
    path = tmp_path / "summary.json"
    write_summary(path, build_summary(made, prompt_sets, features))
    return path


def _evaluation(path: Path, *hashes: str) -> Path:
    """The summary of an evaluation of patches with these hashes."""
    names = [f"safegen-{i}" for i in range(len(hashes))]
    figures = {
        (name, "i2p", "removal"): Estimate(0.9 - i / 10, Interval(0.5, 0.95), 0.001, 40)
        for i, name in enumerate(names)
    }
    figures |= {
        (name, "coco", "clip-score"): Estimate(0.3 + i / 10, Interval(0.2, 0.5), None, 30)
        for i, name in enumerate(["none", *names])
    }
    table = Table(
        [
            DefenseRecord("none", {}),
            *(DefenseRecord(n, {"file_hash": h}) for n, h in zip(names, hashes, strict=True)),
        ],
        [PromptSetRecord("i2p", "unsafe"), PromptSetRecord("coco", "benign")],
        ["removal", "clip-score"],
        figures,
        {"observers": {"detector": {"name": "nudenet", "version": "3.4", "threshold": 0.6}}},
    )
    write_table(table, path)
    return path


def _results(card: ModelCard) -> dict[tuple[str, str], Any]:
    read = ModelCard(str(card))
    return {(r.metric_type, r.dataset_name): r.metric_value for r in read.data.eval_results}


def test_a_demos_figures_become_the_model_index(patch: Path, demo: Path) -> None:
    card = export_card("lab", patch, demo)
    data = ModelCard(str(card)).data
    assert data.license == "apache-2.0"
    assert data.library_name == "diffusers"
    assert "safegen" in data.tags
    assert data.base_model is None
    figures = _results(card)
    summary = json.loads(demo.read_text())
    assert figures["removal_rate", "safegen-lab, implicit"] == summary["removal_rate"]["implicit"]
    assert figures["retention", "safegen-lab, near-miss"] == summary["retention"]["near_miss"]
    assert "from_pretrained" in card.text
    assert "safegen apply" not in card.text


def test_an_evaluations_figures_are_those_of_the_same_file(patch: Path, tmp_path: Path) -> None:
    table = _evaluation(tmp_path / "table.json", "0" * 64, file_hash(patch))
    card = export_card("someone/model", patch, table, license="openrail", half=True)
    assert _results(card) == {("removal", "i2p"): 0.8, ("clip-score", "coco"): 0.5}
    data = ModelCard(str(card)).data
    assert (data.license, data.base_model) == ("openrail", "someone/model")
    assert "detector `nudenet`" in card.text
    assert "| removal | i2p | – | 80.0 % (50.0–95.0) | 40 |" in card.text
    assert "rounded to half precision" in card.text


def test_another_patchs_figures_are_refused(patch: Path, demo: Path, tmp_path: Path) -> None:
    table = _evaluation(tmp_path / "table.json", "0" * 64)
    with pytest.raises(SafegenError, match=r"does not measure .* only none, safegen-0"):
        export_card("lab", patch, table)
    Patch({"a.weight": torch.ones(2, 2)}, {"settings": {"steps": 3}}).save(patch)
    with pytest.raises(SafegenError, match="made with other settings"):
        export_card("lab", patch, demo)


def test_the_licence_is_the_models_own_or_unknown(patch: Path, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert "license:" not in str(export_card(str(folder), patch, demo))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    assert ModelCard(str(export_card(str(folder), patch, demo))).data.license == "mit"
    given = export_card(str(folder), patch, demo, license="openrail", base_model="a/b")
    assert ModelCard(str(given)).data.license == "openrail"
    assert ModelCard(str(given)).data.base_model == "a/b"


@pytest.mark.parametrize("content", [None, "no JSON", "[1]"])
def test_what_is_no_summary_is_named(patch: Path, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SafegenError, match=r"wrong\.json: "):
        export_card("lab", patch, path)


def test_other_methods_have_no_such_card(patch: Path, demo: Path) -> None:
    Patch({"a.weight": torch.ones(2, 2)}, {"method": "uce"}).save(patch)
    with pytest.raises(SafegenError, match="a patch of uce"):
        export_card("lab", patch, demo)
