"""What the commands that fill a table have in common, from their options to their exit code."""

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
    """The preset with what was given; lists add to it, values take the place of its own.

    Args:
        model: as it was named, if it was.
        preset: the settings of a preset, if one was asked for.
        table: of the command.
        given: values of settings by option.
    """
    from safegen.evaluation.settings import EvaluationSettings
    from safegen.profiles import Profile, concept_for, profile_of

    named = preset.model if preset is not None else str(model)
    concept = concept_for(named, table.concept_text, table.concept)
    chosen = {**given, "concept": concept} if concept else given
    if preset is not None:
        return preset.changed(**_added(preset, chosen))
    usual = profile_of(named) or Profile()
    empty = {"defense": (), "unsafe": (), "unsafe_names": frozenset(usual.unsafe_names)}
    return EvaluationSettings.of(**{**empty, **usual.sampling, **chosen, "model": named})


def _added(preset: EvaluationSettings, given: dict[str, Any]) -> dict[str, Any]:
    """The values, with a preset's own specs before those of the lists."""
    fields = {option.name: option.field for option in own_options(type(preset))}
    return {
        name: [*getattr(preset, fields[name]), *value] if isinstance(value, list) else value
        for name, value in given.items()
    }


def check_preset(model: str | None, name: str | None) -> None:
    """Refuse what names no model, or a preset that there is none of or that is of another."""
    from safegen.errors import SafegenError

    if model is None and name is None:
        raise SafegenError("say what to evaluate: a model, or --preset lab")
    if name not in (None, "lab"):
        raise SafegenError(f"unknown preset {name!r}; known: lab")
    if name is not None and model not in (None, "lab"):
        raise SafegenError(f"the preset lab evaluates the model lab, not {model}; leave it out")


def check_requirements(
    requirements: Sequence[Requirement], settings: EvaluationSettings, known_defenses: bool = True
) -> None:
    """See that what requirements name is evaluated, before any work begins."""
    from safegen.evaluation.plan import planned_defenses, planned_prompt_sets
    from safegen.evaluation.requirements import check_names

    defenses = [each.record.name for each in planned_defenses(settings)] if known_defenses else None
    prompt_sets = [each.record.name for each in planned_prompt_sets(settings)]
    observers = [spec.partition(":")[0] for spec in settings.observers]
    check_names(requirements, defenses, prompt_sets, observers)


def observers(
    detector: str | None = None, objects: str | None = None, clip: str | None = None
) -> list[str]:
    """Specs of the observers that were named."""
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
) -> Iterator[None]:
    """What ``fill`` does, with the block after the report and before the bounds.

    Args:
        settings: what to evaluate.
        table: of the command.
        out: run folder.
        patches: run folder that is to have the preset's patches; None without a preset.
    """
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.evaluation.requirements import Requirement

    requirements = [Requirement.parse(text) for text in table.require]
    console = Console()
    prepare(settings, requirements, patches, console)
    options = executor_options(table, patches is not None)
    results = run(settings, out, table.executor, options, console)
    showing.write(results, settings, out, console, unblurred=table.unblurred)
    yield
    exit_if_missed(requirements, results)


def executor_options(table: TableOptions, preset: bool) -> ExecutorOptions:
    """How many workers there are, and where; with a preset one for each core of this machine."""
    from safegen.evaluation.executors import ExecutorOptions

    usual = cores() if preset and table.executor == "local" else None
    return ExecutorOptions(table.workers or usual, table.ray_address)


def prepare(
    settings: EvaluationSettings,
    requirements: Sequence[Requirement],
    patches: Path | None,
    console: Console,
) -> None:
    """See that what requirements name is evaluated, and have what is evaluated there.

    Args:
        settings: what to evaluate.
        requirements: of the command.
        patches: run folder that is to have the preset's patches; None without a preset.
        console: told what is made.
    """
    if patches is not None:
        # Defenses whose patches are not made yet cannot be looked up; all else is seen before.
        check_requirements(requirements, settings, known_defenses=False)
        make_patches(patches, console, settings.allow_other_code)
    check_requirements(requirements, settings)


def make_patches(folder: Path, console: Console, allow_other_code: bool) -> None:
    """Train the patches of the preset that a run folder does not have yet."""
    from safegen.cli._progress import EvaluationProgress
    from safegen.lab.table import make_patches as make

    with EvaluationProgress(console) as progress:
        told: dict[str, Any] = {"say": console.print, "on_progress": progress.show}
        make(folder, allow_other_code=allow_other_code, **told)


def run(
    settings: EvaluationSettings,
    out: Path,
    executor: str,
    options: ExecutorOptions,
    console: Console,
) -> Table:
    """Evaluate, with what is done shown on the console."""
    from safegen.evaluation.run import evaluate

    with shown(console) as told:
        return evaluate(settings, out, executor, options, **told)


@contextmanager
def shown(console: Console) -> Iterator[dict[str, Any]]:
    """What functions that evaluate are told, so that the console shows how far they are."""
    from safegen.cli._progress import EvaluationProgress

    with EvaluationProgress(console) as progress:
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
    """How many of the processor's cores this process may use."""
    import os

    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
