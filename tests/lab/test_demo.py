"""The demo: an edit that goes on, and an ordinary evaluation of it, in a folder of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from safegen.cli._console import Console
from safegen.cli._showing import gallery_of, write
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.evaluation.run import evaluate
from safegen.lab.demo import (
    MADE,
    PATCH,
    DemoSettings,
    demo_card,
    demo_evaluation,
    make_patch,
    start_folder,
)
from safegen.lab.world.world import KINDS
from safegen.patches.patch import Patch
from safegen.report.export_card import export_card
from safegen.report.tables import read_summary
from safegen.results.records import Table
from safegen.results.store import CellKey, ResultsStore

SETTINGS = DemoSettings(
    EditSettings.of(steps=2, unsafe_batch=2, teacher_pool=4), prompts=2, triplets=2
)


def silent(_: object) -> None:
    """Say nothing."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    """A demo that is real but for its size: few prompts, hardly any training."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    start_folder(folder, SETTINGS)
    records = make_patch(folder, SETTINGS, silent, silent)
    settings = demo_evaluation(folder, SETTINGS)
    quick = replace(settings.sampling, steps=6)
    settings = replace(settings, real=None, sampling=quick)
    table = evaluate(settings, folder)
    (folder / "README.md").write_text(str(demo_card(folder, table, records)))
    write(table, settings, folder, Console(), losses=records)
    return folder, table


def test_it_is_an_evaluation_of_the_patch_on_four_kinds(done: tuple[Path, Table]) -> None:
    folder, table = done
    assert read_summary(folder / "summary.json").figures == table.figures
    assert [record.name for record in table.defenses] == ["none", "safegen"]
    assert [record.name for record in table.prompt_sets] == list(KINDS)
    assert {"removal", "retention", "near-miss-retention", "clip-score"} <= set(table.metrics)
    assert "The edit</h2>" in (folder / "report.html").read_text()
    assert set(MADE) - {path.name for path in folder.iterdir()} <= {
        "grid.png", "store.sqlite-wal", "store.sqlite-shm", "tradeoff.png",
    }  # fmt: skip
    settings = demo_evaluation(folder, SETTINGS)
    shown = gallery_of(folder, settings, 1)
    assert [set(each.items[0].pictures) for each in shown.sets] == [{"none", "safegen"}] * 4


def test_the_card_has_its_figures_and_so_has_an_exports(done: tuple[Path, Table]) -> None:
    folder, table = done
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    figures = {(r.metric_type, r.dataset_name): r.metric_value for r in card.data.eval_results}
    asr = table.figures["safegen", "explicit", "asr"].value
    assert figures["asr", "explicit"] == asr
    exported = export_card("lab", folder / PATCH, folder / "summary.json")
    assert len(ModelCard(str(exported)).data.eval_results) == len(figures)


def test_an_interrupted_demo_goes_on_to_the_same_patch(
    done: tuple[Path, Table], tmp_path: Path
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    settings = replace(SETTINGS, edit=SETTINGS.edit.changed(checkpoint_every=1))
    start_folder(tmp_path / "a", settings)
    with pytest.raises(KeyboardInterrupt):
        make_patch(tmp_path / "a", settings, silent, stop)
    start_folder(tmp_path / "a", settings)
    records = make_patch(tmp_path / "a", settings, silent, silent)
    assert [record.step for record in records] == [1, 2]
    first, second = (place / PATCH for place in (done[0], tmp_path / "a"))
    one, other = Patch.load(first).differences, Patch.load(second).differences
    assert all((one[name] == other[name]).all() for name in one)
    patch = second.read_bytes()
    make_patch(tmp_path / "a", settings, silent, stop)
    assert second.read_bytes() == patch
    with pytest.raises(SafegenError, match=r"an unfinished demo has prompts 2 there and 4 here"):
        start_folder(tmp_path / "a", replace(settings, prompts=4))


def test_a_finished_demo_is_begun_anew_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    start_folder(folder, SETTINGS)
    for name in MADE:
        (folder / name).touch()
    (folder / "store.sqlite").unlink()
    (folder / "notes.txt").write_text("mine")
    start_folder(folder, replace(SETTINGS, prompts=4))
    left = {path.name for path in folder.iterdir()}
    assert left == {"demo.json", "notes.txt", "store.lock"}


@pytest.mark.parametrize("what", ["a file", "another command's run", "an evaluation added to it"])
def test_what_another_command_left_is_refused_and_kept(
    what: str, tmp_path: Path, done: tuple[Path, Table]
) -> None:
    folder = tmp_path / "run"
    if what == "a file":
        folder.write_text("mine")
    elif what == "another command's run":
        (folder / "images").mkdir(parents=True)
        (folder / "summary.json").write_text("{}")
    else:
        shutil.copytree(done[0], folder)
        with ResultsStore(folder) as store:
            store.add_pictures(CellKey("sld-max", "explicit"), [0], [(b"", False)])
    before = contents(tmp_path)
    with pytest.raises(SafegenError, match=r"give another folder with --out|name a folder"):
        start_folder(folder, SETTINGS)
    assert contents(tmp_path) == before
