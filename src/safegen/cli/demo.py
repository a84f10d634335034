"""``safegen demo``: an edit of the lab's model, and its evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import Preset


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the patch.")] = Path(
        "runs/demo"
    ),
    prompts: Annotated[int, typer.Option(help="Prompts per kind.", min=64)] = 64,
    triplets: Annotated[
        int | None,
        typer.Option(
            help="Unsafe pictures to train on, with twice as many benign ones (default: the "
            "usual number for the lab).",
            min=1,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of the edit.", min=1)] = None,
    preset: Preset = None,
    seed: Annotated[int, typer.Option(help="Seed of the triplets and the edit.", min=0)] = 0,
) -> None:
    """Edit the lab's model so that it draws no weapons, and evaluate the edit.

    The same command resumes an interrupted run, and starts a finished one anew.
    """
    from safegen.cli import _runs as runs
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.cli._edit_progress import EditProgress
    from safegen.editing.settings import EditSettings
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.files import write_atomically
    from safegen.lab import demo as lab
    from safegen.lab.triplets import PAIRS
    from safegen.report.grid import write_grid

    console = Console()
    changes = {"seed": seed} if steps is None else {"seed": seed, "steps": steps}
    edit = EditSettings().preset(preset).changed(**changes)
    settings = lab.DemoSettings(edit, prompts, triplets or PAIRS)
    evaluation = lab.demo_evaluation(out, settings)
    lab.start_folder(out, settings)
    with EditProgress(edit.optimisation.steps, console) as progress:
        records = lab.make_patch(out, settings, console.print, progress.show, progress.show_teacher)
    table = runs.run(evaluation, out, "local", ExecutorOptions(runs.cores()), console)
    write_atomically(out / lab.CARD, str(lab.demo_card(out, table, records)))
    write_grid(out / lab.GRID, showing.gallery_of(out, evaluation, lab.GRID_ITEMS))
    showing.write(table, evaluation, out, console, losses=records)
