"""``safegen demo``: the main job on the lab, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import Preset


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the patch.")] = Path(
        "runs/demo"
    ),
    prompts: Annotated[int, typer.Option(help="Prompts of each kind.", min=64)] = 64,
    triplets: Annotated[
        int | None,
        typer.Option(
            help="Unsafe pictures to learn from, with twice as many benign ones; by default as "
            "many as every edit of the lab.",
            min=1,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the edit.", min=1)] = None,
    preset: Preset = None,
    seed: Annotated[int, typer.Option(help="Of the triplets and the edit.", min=0)] = 0,
) -> None:
    """Make the lab model lose the ability to draw weapons, and write the evidence."""

    from safegen.cli._console import Console
    from safegen.cli._edit_progress import EditProgress
    from safegen.editing.settings import EditSettings
    from safegen.lab.demo import DemoSettings, run_demo, start_folder
    from safegen.lab.triplets import PAIRS
    from safegen.report.demo import print_summary, write_outputs

    console = Console()
    settings = EditSettings.lab().preset(preset)
    settings = settings if steps is None else settings.changed(steps=steps)
    start_folder(out)
    with EditProgress(settings.optimisation.steps, console) as progress:
        result = run_demo(
            out,
            DemoSettings(prompts, triplets or PAIRS, seed=seed),
            settings,
            say=console.print,
            on_record=progress.show,
        )
    print_summary(write_outputs(out, result), console)
    console.print(f"report: {out / 'report.html'}")
