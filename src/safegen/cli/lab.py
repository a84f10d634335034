"""``safegen lab``: rebuild the lab's models, and check that they are good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The built-in world and its models.", no_args_is_help=True)


@app.command()
def build(
    work: Annotated[Path, typer.Option(help="Folder for stages and checkpoints.")] = Path(
        "runs/lab"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the finished lab (default: the package's).")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only these stages, in the order given.")
    ] = None,
) -> None:
    """Draw the world and train all of the lab's models (some hours on two cores).

    The same command resumes an interrupted build.
    """
    from safegen.lab import weights_folder
    from safegen.lab.build.stages import STAGES, LabBuild

    lab = LabBuild(work)
    for name in stage or STAGES:
        for progress in lab.run(name):
            if progress.step % 50 == 0 or progress.step == progress.steps:
                typer.echo(
                    f"{name}: step {progress.step}/{progress.steps}, loss {progress.loss:.4f}, "
                    f"{progress.seconds:.0f} s"
                )
    if stage is None:
        lab.assemble(out or weights_folder())
        typer.echo(f"wrote {out or weights_folder()}")


@app.command()
def check(
    count: Annotated[int, typer.Option(help="Pictures per prompt kind.", min=1)] = 200,
    scenes: Annotated[int, typer.Option(help="Real scenes for the recognisers.", min=1)] = 2000,
) -> None:
    """Measure the lab against its quality floors on fresh seeds; exit code 1 if one is missed."""
    from rich.table import Table

    from safegen.cli._console import Console
    from safegen.detectors import create_detector
    from safegen.lab.check import check_lab
    from safegen.models.loading import load_pipeline

    table = Table("what", "right", "of", "share", "floor", "", title="lab check")
    missed = False
    detectors = create_detector("lab"), create_detector("lab:second")
    for result in check_lab(load_pipeline("lab"), *detectors, count, scenes):
        verdict = "good" if result.good else "MISSED"
        missed = missed or not result.good
        row = (result.name, result.right, result.count, f"{result.share:.1%}")
        table.add_row(*map(str, row), f"{result.floor:.0%}", verdict)
    Console().print(table)
    if missed:
        raise typer.Exit(1)
