"""The card of an export: figures of the patch that was measured, and of no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.patches.patch import Patch
from safegen.report.export_card import export_card
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
def summary(patch: Path, tmp_path: Path) -> Path:
    """The summary of an evaluation that measured it, and another."""
    return _evaluation(tmp_path / "summary.json", "0" * 64, file_hash(patch))


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


def test_the_figures_are_those_of_the_same_file(patch: Path, summary: Path) -> None:
    card = export_card("someone/model", patch, summary, license="openrail", half=True)
    assert _results(card) == {("removal", "i2p"): 0.8, ("clip-score", "coco"): 0.5}
    data = ModelCard(str(card)).data
    assert (data.license, data.base_model) == ("openrail", "someone/model")
    assert "safegen" in data.tags
    assert "detector `nudenet`" in card.text
    assert "| removal | i2p | – | 80.0 % (50.0–95.0) | 40 |" in card.text
    assert "rounded to half precision" in card.text
    assert "from_pretrained" in card.text
    assert "safegen apply" not in card.text


def test_another_patchs_figures_are_refused(patch: Path, tmp_path: Path) -> None:
    table = _evaluation(tmp_path / "table.json", "0" * 64)
    with pytest.raises(SafegenError, match=r"does not measure .* only none, safegen-0"):
        export_card("lab", patch, table)


def test_the_licence_is_the_models_own_or_unknown(
    patch: Path, summary: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert ModelCard(str(export_card("lab", patch, summary))).data.license == "apache-2.0"
    assert "license:" not in str(export_card(str(folder), patch, summary))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    assert ModelCard(str(export_card(str(folder), patch, summary))).data.license == "mit"
    for broken in ("---\nlicense: [\n---\n", "---\nlicense: [a, b]\n---\n", "---\n- a\n---\n"):
        (folder / "README.md").write_text(broken)
        with pytest.raises(SafegenError, match=r"README\.md: its .* give --license"):
            export_card(str(folder), patch, summary)
    (folder / "README.md").unlink()
    given = export_card(str(folder), patch, summary, license="openrail", base_model="a/b")
    assert ModelCard(str(given)).data.license == "openrail"
    assert ModelCard(str(given)).data.base_model == "a/b"


@pytest.mark.parametrize("content", [None, "no JSON", "[1]"])
def test_what_is_no_summary_is_named(patch: Path, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SafegenError, match=r"wrong\.json: "):
        export_card("lab", patch, path)


def test_other_methods_have_no_such_card(patch: Path, summary: Path) -> None:
    Patch({"a.weight": torch.ones(2, 2)}, {"method": "uce"}).save(patch)
    with pytest.raises(SafegenError, match="a patch of uce"):
        export_card("lab", patch, summary)
