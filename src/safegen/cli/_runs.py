"""Steps of the commands that fill a table, from their options to their exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safegen.settings import own_options

if TYPE_CHECKING:
    from safegen.cli._console import Console
    from safegen.cli._options import TableOptions
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.requirements import Requirement
    from safegen.evaluation.settings import EvaluationSettings
    from safegen.results.records import Table


def settings_from(
    model: str | None,
    preset: EvaluationSettings | None,
    table: TableOptions,
    given: dict[str, Any],
) -> EvaluationSettings:
    """Combine a preset with the given settings; lists add to it, values replace its own.

    Args:
        model: name of the model; None if not given.
        preset: settings of the preset; None without one.
        table: table options of the command.
        given: values of the given settings, by option.
    """
    from safegen.evaluation.settings import EvaluationSettings
    from safegen.profiles import Profile, concept_for, profile_of

    named = preset.model if preset is not None else str(model)
    concept = concept_for(named, table.concept_text, table.concept)
    chosen = {**given, "concept": concept} if concept else given
    if preset is not None:
        return preset.changed(**_added(preset, chosen))
    usual = profile_of(named) or Profile()
    objects = usual.concept.objects if usual.concept else ()
    empty = {"defense": (), "unsafe": (), "unsafe_names": frozenset(objects)}
    return EvaluationSettings.of(**{**empty, **usual.sampling, **chosen, "model": named})


def _added(preset: EvaluationSettings, given: dict[str, Any]) -> dict[str, Any]:
    """Prepend a preset's own specs to the given lists."""
    fields = {option.name: option.field for option in own_options(type(preset))}
    return {
        name: [*getattr(preset, fields[name]), *value] if isinstance(value, list) else value
        for name, value in given.items()
    }


def check_preset(model: str | None, name: str | None, known: tuple[str, ...] = ("lab",)) -> None:
    """Refuse a missing model, a preset that is not ``known``, or a preset of another model."""
    from safegen.errors import SafegenError

    if model is None and name is None:
        raise SafegenError("say what to evaluate: a model, or --preset lab")
    if name not in (None, *known):
        raise SafegenError(f"unknown preset {name!r}; known: {', '.join(known)}")
    if name == "lab" and model not in (None, "lab"):
        raise SafegenError(f"the preset lab evaluates the model lab, not {model}; leave it out")


def check_requirements(
    requirements: Sequence[Requirement], settings: EvaluationSettings, known_defenses: bool = True
) -> None:
    """Check, before any work, that all that requirements name is evaluated."""
    from safegen.evaluation.plan import planned_defenses, planned_prompt_sets
    from safegen.evaluation.requirements import check_names

    defenses = [each.record.name for each in planned_defenses(settings)] if known_defenses else None
    prompt_sets = [each.record.name for each in planned_prompt_sets(settings)]
    observers = [spec.partition(":")[0] for spec in settings.observers]
    check_names(requirements, defenses, prompt_sets, observers)


def observers(
    detector: str | None = None, objects: str | None = None, clip: str | None = None
) -> list[str]:
    """List the specs of the given observers."""
    named = {"detector": detector, "objects": objects, "clip": clip}
    return [f"{name}:{place}" for name, place in named.items() if place is not None]


def fill(
    settings: EvaluationSettings, table: TableOptions, out: Path, patches: Path | None
) -> None:
    """Fill a run folder's table and write its report; the exit code is 1 if a bound is missed."""
    with filled(settings, table, out, patches):
        pass


@contextmanager
def filled(
    settings: EvaluationSettings, table: TableOptions, out: Path, patches: Path | None
) -> Iterator[Table]:
    """Do what ``fill`` does, with the block after the report and before the bounds; yields the
    table.

    Args:
        settings: settings of the evaluation.
        table: table options of the command.
        out: run folder.
        patches: run folder for the preset's patches; None without a preset.
    """
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.evaluation.requirements import Requirement

    requirements = [Requirement.parse(text) for text in table.require]
    console = Console()
    prepare(settings, requirements, patches, console)
    options = executor_options(table, patches is not None)
    results = _with_command(run(settings, out, table.executor, options, console))
    showing.write(results, settings, out, console, unblurred=table.unblurred)
    yield results
    exit_if_missed(requirements, results)


def _with_command(table: Table) -> Table:
    """Record this process's command in a table's provenance."""
    import shlex
    import sys
    from dataclasses import replace

    command = shlex.join(["safegen", *sys.argv[1:]])
    return replace(table, provenance={**table.provenance, "command": command})


def executor_options(table: TableOptions, preset: bool) -> ExecutorOptions:
    """Choose number and place of the workers; with a preset, one per core of this machine."""
    from safegen.evaluation.executors import ExecutorOptions

    usual = cores() if preset and table.executor == "local" else None
    return ExecutorOptions(table.workers or usual, table.ray_address)


def prepare(
    settings: EvaluationSettings,
    requirements: Sequence[Requirement],
    patches: Path | None,
    console: Console,
) -> None:
    """Check that all that requirements name is evaluated, and make the preset's patches.

    Args:
        settings: settings of the evaluation.
        requirements: bounds of the command.
        patches: run folder for the preset's patches; None without a preset.
        console: console that shows the progress.
    """
    if patches is not None:
        # Defenses cannot be looked up before their patches are made; all else is checked first.
        check_requirements(requirements, settings, known_defenses=False)
        make_patches(patches, console, settings.allow_other_code)
    check_requirements(requirements, settings)


def make_patches(folder: Path, console: Console, allow_other_code: bool) -> None:
    """Train the preset's patches that the run folder lacks."""
    from safegen.cli._progress import PhaseProgress
    from safegen.lab.table import make_patches as make

    with PhaseProgress(console) as progress:
        told: dict[str, Any] = {"say": console.print, "on_progress": progress.show}
        make(folder, allow_other_code=allow_other_code, **told)


def run(
    settings: EvaluationSettings,
    out: Path,
    executor: str,
    options: ExecutorOptions,
    console: Console,
) -> Table:
    """Evaluate, and show the progress on the console."""
    from safegen.evaluation.run import evaluate

    with shown(console) as told:
        return evaluate(settings, out, executor, options, **told)


@contextmanager
def shown(console: Console) -> Iterator[dict[str, Any]]:
    """Give the callbacks with which evaluating functions show their progress on the console."""
    from safegen.cli._progress import PhaseProgress

    with PhaseProgress(console) as progress:
        yield {
            "say": console.print,
            "on_progress": lambda at: progress.show(at.phase, at.done, at.total, at.detail),
        }


def exit_if_missed(requirements: Sequence[Requirement], table: Table) -> None:
    """Say which bounds are missed; the exit code is 1 if any is."""
    from safegen.evaluation.requirements import missed

    lines = missed(requirements, table)
    for line in lines:
        typer.echo(f"safegen: {line}", err=True)
    if lines:
        raise typer.Exit(1)


def cores() -> int:
    """Count the processor cores that this process may use."""
    import os

    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
