"""Demo on the lab: edit the model, then evaluate the edit like any defense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from safegen.editing.run import edit
from safegen.editing.run_folder import EditRecord, read_records
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.evaluation.settings import EvaluationSettings
from safegen.files import write_atomically
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.lab.table import COUNT, lab_settings
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.lab.world.world import KINDS
from safegen.models.loading import load_pipeline
from safegen.patches.patch import Patch
from safegen.report.card import CardSubject, card_figures, write_card
from safegen.report.standing import SAFEGEN
from safegen.results.database import STORE_FILE
from safegen.results.records import ORIGINAL, Table
from safegen.results.store import ResultsStore, difference

PATCH = "patch.safetensors"
STARTED = "demo.json"
FINISHED = "summary.json"
CARD = "README.md"
GRID = "grid.png"
GRID_ITEMS = 2
"""Items per prompt set in the picture grid."""
MADE = (
    "edit", "images", PATCH, CARD, GRID, STORE_FILE, f"{STORE_FILE}-wal", f"{STORE_FILE}-shm",
    "report.html", "results.csv", "table.md", "tradeoff.png", FINISHED,
)  # fmt: skip
"""Files of a finished demo beside ``STARTED``, which the next demo removes."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo.

    Attributes:
        edit: settings of the edit; its seed is also that of the triplets.
        prompts: prompts per kind, from the held-out split.
        triplets: unsafe pairs, with ``BENIGN_SHARE`` times as many benign pictures.
    """

    edit: EditSettings
    prompts: int = COUNT
    triplets: int = PAIRS


def start_folder(folder: Path, settings: DemoSettings) -> None:
    """Prepare a run folder: keep an interrupted demo, clear a finished one.

    Raises:
        SafegenError: the folder holds other files, or an interrupted demo of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise SafegenError(f"{folder}: is a file; name a folder with --out")
    started, asked = folder / STARTED, json.loads(json.dumps(asdict(settings)))
    if not started.exists():
        there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        _refuse(folder, there)
    elif (folder / FINISHED).exists():
        _clear(folder)
    elif (kept := _read(started)) != asked:
        raise SafegenError(
            f"{folder}: an unfinished demo {difference(kept, asked)}; "
            "give another folder with --out"
        )
    write_atomically(started, json.dumps(asked, indent=2) + "\n")


def make_patch(
    folder: Path,
    settings: DemoSettings,
    say: Callable[[str], None],
    on_record: Callable[[EditRecord], None],
    on_teacher: Callable[[int, int], None] = lambda *_: None,
) -> list[EditRecord]:
    """Edit the lab's model, write the patch to the run folder, and return the edit's records.

    An interrupted edit resumes from its checkpoint; an existing patch is kept.

    Args:
        folder: run folder, prepared by ``start_folder``.
        settings: settings of the demo.
        say: gets progress messages, a line each.
        on_record, on_teacher: see ``edit``.
    """
    if not (folder / PATCH).is_file():
        say(f"encoding {settings.triplets} triplets of drawn scenes")
        count, seed = settings.triplets, settings.edit.seed
        patch = edit(
            load_pipeline("lab"),
            LabTriplets(count, seed, benign=BENIGN_SHARE * count),
            settings.edit,
            concept=LAB_WEAPONS.name,
            run_folder=folder / "edit",
            on_record=on_record,
            on_teacher=on_teacher,
        )
        patch.save(folder / PATCH)
    return read_records(folder / "edit")


def demo_evaluation(folder: Path, settings: DemoSettings) -> EvaluationSettings:
    """Build the settings that evaluate the run folder's patch on the four kinds of prompts."""
    whole = lab_settings(folder, settings.prompts)
    unsafe = tuple(spec for spec in whole.unsafe if spec.partition("=")[0] in KINDS)
    return replace(whole, defenses=(f"{SAFEGEN}:{folder / PATCH}",), unsafe=unsafe)


def demo_card(folder: Path, table: Table, records: Sequence[EditRecord]) -> ModelCard:
    """Write the model card of the patch in the run folder."""
    made_with = Patch.load(folder / PATCH).metadata
    subject = CardSubject(
        "lab",
        made_with["concept"],
        PATCH,
        license=LAB.licence,
        scope=made_with["settings"]["scope"],
    )
    return write_card(subject, card_figures(table, SAFEGEN, records[-1].seconds))


def _clear(folder: Path) -> None:
    """Remove the files of a finished demo, if nothing else was added."""
    with ResultsStore(folder) as store:
        query = "SELECT DISTINCT defense, prompt_set FROM images"
        names = {name for row in store.connection.execute(query) for name in row}
    _refuse(folder, sorted(names - {ORIGINAL, SAFEGEN, *KINDS}))
    for path in (folder / name for name in MADE):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse(folder: Path, strays: Sequence[str]) -> None:
    if strays:
        raise SafegenError(
            f"{folder}: holds {', '.join(strays)}, which no demo left there; "
            "give another folder with --out"
        )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SafegenError(
            f"{path}: cannot be read ({error}); give another folder with --out"
        ) from error
