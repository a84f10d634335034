"""``safegen evaluate``: defenses against prompt sets on one model, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli import _paper as paper
from safegen.cli import _runs as runs
from safegen.cli._options import ModelArgument, TableOptions
from safegen.cli._paper import PaperOptions
from safegen.cli._settings import takes_settings
from safegen.evaluation.settings import EvaluationSettings


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from safegen.defenses import DEFENSES
    from safegen.detectors import DETECTORS
    from safegen.metrics import METRICS
    from safegen.observers import OBSERVERS
    from safegen.prompts import PROMPT_SETS

    for registry in (DEFENSES, PROMPT_SETS, DETECTORS, OBSERVERS, METRICS):
        typer.echo(f"{registry.kind}: {', '.join(registry.names())}")
    raise typer.Exit


@takes_settings(given=EvaluationSettings)
def evaluate(
    model: ModelArgument = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset: lab (all defenses on the built-in model), or paper (SafeGen's own "
            "comparison, with its data in --data); other options add to it."
        ),
    ] = None,
    named: Annotated[str | None, typer.Option("--model", help="The same as MODEL.")] = None,
    clip: Annotated[
        str | None, typer.Option(help="Model of the CLIP score: a folder, a hub id, or lab.")
    ] = None,
    inception: Annotated[
        bool, typer.Option("--inception", help="Measure the Fréchet distance (Inception).")
    ] = False,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Measure the LPIPS distance to the undefended picture.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Run folder: results, table and report.")] = Path(
        "runs/evaluation"
    ),
    listed: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--list",
            callback=_list,
            is_eager=True,
            help="Print the names of all defenses, prompt sets, detectors, observers and metrics.",
        ),
    ] = False,
    *,
    given: dict[str, Any],
    table: TableOptions,
    published: PaperOptions,
) -> None:
    """Evaluate defenses on prompt sets: draw and observe pictures, write a table and a report.

    The same command resumes an interrupted run; a command with further defenses or prompt sets
    adds them to the run, and draws only what is new.
    """
    given["observer"] = [
        *runs.observers(table.detector, table.objects, clip),
        *["inception"] * inception,
        *["lpips"] * lpips,
        *given.get("observer", ()),
    ]
    model = _same_model(model, named)
    runs.check_preset(model, preset, ("lab", "paper"))
    paper.check_options(published, preset)
    if preset == "paper":
        paper.evaluate(model, out, published, table, given)
        return
    chosen = _preset(preset, table.count, out)
    settings = runs.settings_from(model, chosen, table, given)
    runs.fill(settings, table, out, out if preset is not None else None)


def _same_model(model: str | None, named: str | None) -> str | None:
    """Return the model, which the argument or the option names."""
    from safegen.errors import SafegenError

    if model and named and model != named:
        raise SafegenError(f"{model} and --model {named} are two models; give one")
    return model or named


def _preset(name: str | None, count: int | None, out: Path) -> EvaluationSettings | None:
    """Return the settings of the lab's preset, or None without one."""
    from safegen.errors import SafegenError

    if name is None:
        if count is not None:
            raise SafegenError("--count belongs to --preset; in a spec write count=N")
        return None
    from safegen.lab.table import COUNT, lab_settings

    return lab_settings(out, count or COUNT)
