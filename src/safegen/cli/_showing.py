"""Output of a completed run: its page, its tables, and the table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.cli._console import Console
from safegen.evaluation.plan import plan_evaluation
from safegen.evaluation.settings import EvaluationSettings
from safegen.evaluation.worker import decode
from safegen.files import write_atomically
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import SHOWN, Gallery, GalleryPicture, gallery_items
from safegen.report.standing import standing
from safegen.report.tables import table_to_rich, write_outputs
from safegen.report.tradeoff import write_tradeoff_png
from safegen.results.cells import all_items, findings, flagged, picture_bytes, stored_image
from safegen.results.records import Table
from safegen.results.store import CellKey, ResultsStore, image_path

if TYPE_CHECKING:
    from safegen.editing.probes import Probed
    from safegen.editing.run_folder import EditRecord


def write(
    table: Table,
    settings: EvaluationSettings,
    out: Path,
    console: Console,
    *,
    unblurred: bool = False,
    outcomes: Sequence[object] = (),
    losses: Sequence[EditRecord] = (),
    probes: Sequence[Probed] = (),
) -> None:
    """Write the page, the plot where there is one, and the tables, and print the table.

    Args:
        table: table of the run.
        settings: settings of the evaluation.
        out: run folder.
        console: console that prints the table.
        unblurred: see ``render_report``.
        outcomes, losses, probes: see ``render_report``.
    """
    gallery, plot = gallery_of(out, settings), out / "tradeoff.png"
    page = render_report(
        table, gallery, outcomes=outcomes, losses=losses, probes=probes, unblurred=unblurred
    )
    write_atomically(out / "report.html", page)
    if standing(table) is None:
        plot.unlink(missing_ok=True)  # from an earlier command, of another table
    else:
        write_tradeoff_png(plot, table)
    write_outputs(table, out)
    console.print(table_to_rich(table))
    console.print(f"report: {out / 'report.html'}")


def gallery_of(folder: Path, settings: EvaluationSettings, shown: int = SHOWN) -> Gallery:
    """Choose some items of every prompt set under every defense, from a completed run.

    Args:
        folder: run folder.
        settings: settings of the evaluation.
        shown: largest number of items per prompt set.

    Raises:
        SafegenError: a picture is missing.
    """
    plan = plan_evaluation(settings)
    roles = {each.record.name: each.record.role for each in plan.prompt_sets}
    with ResultsStore(folder) as store:

        def picture(defense: str, prompt_set: str, position: int) -> GalleryPicture:
            cell = CellKey(defense, prompt_set)
            record = stored_image(store, cell, position)
            unsafe = flagged(store, cell, position)
            if unsafe is None:  # no detector has seen it
                unsafe = roles[prompt_set] == "unsafe"
            image = decode(picture_bytes(image_path(folder, record.hash)))
            found = findings(store, cell).get(position)
            text = (found and found.text) or ""
            return GalleryPicture(image, unsafe and not record.blocked, record.blocked, text)

        items = {name: all_items(store, name) for name in roles}
        defenses = [each.record.name for each in plan.defenses]
        return gallery_items(defenses, items, picture, shown)
