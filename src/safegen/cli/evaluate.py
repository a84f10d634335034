"""``safegen evaluate``: defenses against prompt sets on one model, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.records import Table
    from safegen.evaluation.requirements import Requirement
    from safegen.evaluation.settings import EvaluationSettings

SET_HELP = "SPEC or NAME=SPEC, such as i2p:FILE or lab:explicit; may be repeated."


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="'lab', a diffusers folder, or a hub id.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="lab: the whole comparison on the built-in model, to which other options add."
        ),
    ] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(
            help="SPEC or NAME=SPEC, such as sld-max or safegen:PATCH+sld-max; may be repeated. "
            "The undefended model is always evaluated."
        ),
    ] = None,
    unsafe: Annotated[
        list[str] | None, typer.Option(help=f"Prompts that ask for the concept: {SET_HELP}")
    ] = None,
    benign: Annotated[
        list[str] | None, typer.Option(help=f"Prompts whose pictures must stay: {SET_HELP}")
    ] = None,
    near_miss: Annotated[
        list[str] | None,
        typer.Option(help=f"Benign prompts whose pictures resemble the concept: {SET_HELP}"),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Finds the concept: nudenet, onnx:FILE, lab and others.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="For the CLIP score: a folder, a hub id, or lab.")
    ] = None,
    objects: Annotated[
        str | None, typer.Option(help="Tells which objects are drawn, for retention: lab.")
    ] = None,
    inception: Annotated[
        bool, typer.Option("--inception", help="For the Fréchet distance of papers.")
    ] = False,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="For the distance to the undefended model's picture.")
    ] = False,
    real: Annotated[
        str | None,
        typer.Option(help="Folder of real pictures for the Fréchet distance, or lab."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale of prompts without one of their own.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm++ or euler.")] = None,
    samples: Annotated[int | None, typer.Option(help="Pictures a prompt.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Base of all seeds, instead of those of the prompts.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures at once in each worker.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads a worker.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the weights: float32, float16 or bfloat16.")
    ] = None,
    concept_text: Annotated[
        str | None, typer.Option(help="What text-dependent defenses avoid: 'knife, pistol'.")
    ] = None,
    concept: Annotated[str | None, typer.Option(help="Name of what they avoid.")] = None,
    count: Annotated[
        int | None, typer.Option(help="Prompts of each kind in the preset.", min=1)
    ] = None,
    executor: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many; by default one for each GPU or, where there is none, one (on a Ray "
            "cluster and with the preset, one for each processor core)."
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; else one is started here.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="A bound such as 'removal>=0.99', 'removal@i2p>=0.9' or 'safegen:retention>=0.95';"
            " the exit code is 1 if one is missed. May be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder: results, table and report.")] = Path(
        "runs/evaluation"
    ),
    unblurred: Annotated[
        bool, typer.Option("--unblurred", help="Show unsafe pictures of the report as they are.")
    ] = False,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Evaluate defenses on prompt sets: pictures, what was observed of them, one table, a report.

    The same command goes on with a run that was interrupted; one with further defenses or prompt
    sets adds them, and draws only what is new.
    """
    from rich.console import Console

    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.requirements import Requirement, missed

    requirements = [Requirement.parse(text) for text in require or []]
    lists = {
        "defenses": defense,
        "unsafe": unsafe,
        "benign": benign,
        "near_miss": near_miss,
        "observers": _observers(detector, objects, clip, inception, lpips),
    }
    values = {
        "samples": samples,
        "seed": seed,
        "batch": batch,
        "threads": threads,
        "precision": precision,
        "real": real,
        "concept": _concept("lab" if preset else model, concept_text, concept),
        "local_files_only": local_files_only or None,
    }
    sampling = {"steps": steps, "guidance": guidance, "sampler": sampler}
    console = Console()
    settings = _settings(model, _preset(model, preset, count, out), lists, values, sampling)
    if preset is not None:
        _check(requirements, settings, known_defenses=False)
        _make_patches(out, console)
        workers = workers or (_cores() if executor == "local" else None)
    _check(requirements, settings)
    table = _run(settings, out, executor, ExecutorOptions(workers, ray_address), console)
    _write(table, settings, out, unblurred, console)
    lines = missed(requirements, table)
    for line in lines:
        typer.echo(f"safegen: {line}", err=True)
    if lines:
        raise typer.Exit(1)


def _observers(
    detector: str | None, objects: str | None, clip: str | None, inception: bool, lpips: bool
) -> list[str]:
    """Specs of the observers asked for."""
    named = {"detector": detector, "objects": objects, "clip": clip}
    specs = [f"{name}:{place}" for name, place in named.items() if place is not None]
    return [*specs, *["inception"] * inception, *["lpips"] * lpips]


def _concept(model: str | None, text: str | None, name: str | None) -> Any:
    from safegen.concepts import concept_for

    return concept_for(model or "", text, name)


def _preset(
    model: str | None, name: str | None, count: int | None, out: Path
) -> EvaluationSettings | None:
    """The settings of a preset, if one was asked for."""
    from safegen.errors import SafegenError

    if name is None:
        if count is not None:
            raise SafegenError("--count belongs to --preset lab; in a spec write count=N")
        return None
    if name != "lab":
        raise SafegenError(f"unknown preset {name!r}; known: lab")
    if model not in (None, "lab"):
        raise SafegenError(f"the preset lab evaluates the model lab, not {model}; leave it out")
    from safegen.evaluation.lab_preset import COUNT, lab_settings

    return lab_settings(out, count or COUNT)


def _settings(
    model: str | None,
    preset: EvaluationSettings | None,
    lists: dict[str, list[str] | None],
    values: dict[str, Any],
    sampling: dict[str, Any],
) -> EvaluationSettings:
    """The preset with what was given; lists add to it, values take the place of its own."""
    from dataclasses import replace

    from safegen.errors import SafegenError
    from safegen.evaluation.settings import EvaluationSettings
    from safegen.lab.objects import UNSAFE_NAMES
    from safegen.lab.pictures import SAMPLING
    from safegen.models.sampling import SamplingSettings

    if preset is None and model is None:
        raise SafegenError("say what to evaluate: a model, or --preset lab")
    usual = SAMPLING if model == "lab" or preset is not None else SamplingSettings()
    chosen = {name: value for name, value in values.items() if value is not None}
    chosen["sampling"] = replace(
        usual, **{name: value for name, value in sampling.items() if value is not None}
    )
    added: dict[str, Any] = {name: tuple(specs or ()) for name, specs in lists.items()}
    if preset is not None:
        joined: dict[str, Any] = {
            name: (*getattr(preset, name), *specs) for name, specs in added.items()
        }
        return replace(preset, **joined, **chosen)
    unsafe_names = frozenset(UNSAFE_NAMES) if model == "lab" else frozenset()
    return EvaluationSettings(str(model), unsafe_names=unsafe_names, **added, **chosen)


def _check(
    requirements: list[Requirement], settings: EvaluationSettings, known_defenses: bool = True
) -> None:
    """See that what requirements name is evaluated, before any work begins."""
    from safegen.evaluation.plan import planned_defenses, planned_prompt_sets
    from safegen.evaluation.requirements import check_names

    defenses = [each.record.name for each in planned_defenses(settings)] if known_defenses else None
    prompt_sets = [each.record.name for each in planned_prompt_sets(settings)]
    observers = [spec.partition(":")[0] for spec in settings.observers]
    check_names(requirements, defenses, prompt_sets, observers)


def _make_patches(out: Path, console: Console) -> None:
    from safegen.evaluation.lab_preset import make_patches
    from safegen.evaluation.progress import EvaluationProgress

    with EvaluationProgress(console) as progress:
        make_patches(out, say=console.print, on_progress=progress.show)


def _run(
    settings: EvaluationSettings,
    out: Path,
    executor: str,
    options: ExecutorOptions,
    console: Console,
) -> Table:
    from safegen.evaluation.progress import EvaluationProgress
    from safegen.evaluation.run import evaluate as run

    with EvaluationProgress(console) as progress:
        return run(
            settings,
            out,
            executor,
            options,
            say=console.print,
            on_progress=lambda at: progress.show(at.phase, at.done, at.total, at.detail),
        )


def _write(
    table: Table, settings: EvaluationSettings, out: Path, unblurred: bool, console: Console
) -> None:
    from safegen.evaluation.outputs import table_to_rich, write_outputs
    from safegen.evaluation.showing import gallery_of
    from safegen.report.evaluation import write_report

    write_report(out / "report.html", table, gallery_of(out, settings), unblurred=unblurred)
    write_outputs(table, out)
    console.print(table_to_rich(table))
    console.print(f"report: {out / 'report.html'}")


def _cores() -> int:
    """How many of the processor's cores this process may use."""
    import os

    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
