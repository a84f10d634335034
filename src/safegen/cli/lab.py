"""``safegen lab``: rebuild the lab's models, check that they are good enough, and find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli._options import check_out
from safegen.cli._settings import takes_settings
from safegen.errors import SafegenError
from safegen.lab.build.network_settings import TWIN, NetworkSettings
from safegen.settings import suggestion

app = typer.Typer(help="The built-in world and its models.", no_args_is_help=True)
MODELS = ("lab", "lab-sd3")
KINDS = ("sd1", "sd3", "v-prediction")
Model = Annotated[str, typer.Argument(help="The lab's model: lab or lab-sd3.")]


@app.command()
@takes_settings(given=NetworkSettings)
def build(
    given: Mapping[str, Any],
    model: Annotated[
        str,
        typer.Option(
            help="Which model: sd1 (lab), sd3 (lab-sd3), or v-prediction (the lab's twin, which "
            "predicts velocities down to no signal at all, and does not ship)."
        ),
    ] = "sd1",
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for stages and checkpoints (default: runs/lab, runs/lab-sd3 or "
            "runs/lab-v-prediction)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the finished model (default: the package's; for v-prediction, model/ "
            "in the work folder)."
        ),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only these stages of sd1, in the order given.")
    ] = None,
) -> None:
    """Draw the world and train all of the lab's models, or one further network.

    Each takes some hours on two cores. The same command resumes an interrupted build.
    """
    _check_known(model, KINDS)
    if out is not None:
        check_out(out)
        if out.is_file():
            raise SafegenError(f"--out {out}: is a file; name a folder")
    if model == "sd1":
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise SafegenError(f"{options}: only for --model sd3 and --model v-prediction")
        _build(work or Path("runs/lab"), out, stage)
        return
    if stage:
        raise SafegenError(f"{model} has one stage; leave out --stage")
    usual = TWIN if model == "v-prediction" else {}
    _build_network(model, NetworkSettings.of(**{**usual, **given}), work, out)


def _build(work: Path, out: Path | None, stage: list[str] | None) -> None:
    from safegen.lab import weights_folder
    from safegen.lab.build.stages import STAGES, LabBuild

    for name in stage or ():
        if name not in STAGES:
            known = f"known: {', '.join(STAGES)}{suggestion(name, STAGES)}"
            raise SafegenError(f"--stage {name}: unknown stage; {known}")
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


def _build_network(
    model: str, settings: NetworkSettings, work: Path | None, out: Path | None
) -> None:
    from safegen.lab import sd3_weights_folder
    from safegen.lab.build.joint import JointBuild
    from safegen.lab.build.twin import TwinBuild
    from safegen.models.loading import quieten

    quieten()
    lab: JointBuild | TwinBuild
    if model == "sd3":
        lab = JointBuild(work or Path("runs/lab-sd3"), settings)
        out = out or sd3_weights_folder()
    else:
        lab = TwinBuild(work or Path("runs/lab-v-prediction"), settings)
        out = out or lab.folder / "model"
    losses, first = [], None
    for progress in lab.train():
        losses.append(progress.loss)
        first = first or progress
        if progress.step % 50 == 0 or progress.step == progress.steps:
            seen = (progress.step - first.step + 1) * settings.batch
            typer.echo(
                f"{model}: {progress.step * settings.batch:,} of {settings.samples:,} pictures, "
                f"loss {sum(losses) / len(losses):.4f}, {seen / progress.seconds:.1f} a second"
            )
            losses.clear()
    lab.assemble(out)
    typer.echo(f"wrote {out}")


@app.command()
def path(model: Model = "lab") -> None:
    """Print a model's folder, which diffusers loads without safegen."""
    from safegen.models.loading import resolve

    _check_known(model, MODELS)
    typer.echo(resolve(model))


@app.command()
def check(
    model: Annotated[
        str, typer.Argument(help="The lab's model: lab, lab-sd3, or the folder of a twin.")
    ] = "lab",
    count: Annotated[int, typer.Option(help="Pictures per prompt kind.", min=1)] = 200,
    scenes: Annotated[int, typer.Option(help="Real scenes for the recognisers.", min=1)] = 2000,
) -> None:
    """Measure the lab against its quality floors on fresh seeds; exit code 1 if one is missed."""
    from rich.table import Table

    from safegen.cli._console import Console
    from safegen.detectors import create_detector
    from safegen.lab.check import check_lab
    from safegen.models.loading import load_pipeline

    if not Path(model).is_dir():
        _check_known(model, MODELS)
    pipeline = load_pipeline(model)
    table = Table("what", "right", "of", "share", "floor", "", title=f"{model} check")
    missed = False
    detectors = create_detector("lab"), create_detector("lab:second")
    for result in check_lab(pipeline, *detectors, count, scenes):
        verdict = "good" if result.good else "MISSED"
        missed = missed or not result.good
        row = (result.name, result.right, result.count, f"{result.share:.1%}")
        table.add_row(*map(str, row), f"{result.floor:.0%}", verdict)
    Console().print(table)
    if missed:
        raise typer.Exit(1)


def _check_known(model: str, known: tuple[str, ...]) -> None:
    if model not in known:
        hint = suggestion(model, known)
        raise SafegenError(f"the lab has no model {model!r}; known: {', '.join(known)}{hint}")
