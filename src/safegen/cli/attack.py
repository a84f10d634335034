"""``safegen attack``: attacks on a model one holds, with and without defenses, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli import _runs as runs
from safegen.cli._options import (
    BatchOption,
    BenignOption,
    ConceptOption,
    ConceptTextOption,
    DefenseOption,
    DetectorOption,
    ExecutorOption,
    GuidanceOption,
    ModelArgument,
    NearMissOption,
    ObjectsOption,
    OtherCodeOption,
    PrecisionOption,
    RayAddressOption,
    RequireOption,
    SamplerOption,
    SamplesOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
    UnblurredOption,
    UnsafeOption,
    WorkersOption,
)
from safegen.cli.loading import takes_load_options
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.cli._console import Console
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.found_prompts import Saving
    from safegen.evaluation.settings import AttackSettings, EvaluationSettings


def _list(wanted: bool) -> None:
    if wanted:
        from safegen.attacks import ATTACKS

        typer.echo("\n".join(ATTACKS.names()))
        raise typer.Exit


@takes_load_options
def attack(
    model: ModelArgument = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="lab: all attacks on the built-in model and its defenses, to which other options "
            "add."
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="SPEC or NAME=SPEC, such as sneakyprompt:p or img2img:0.5; may be repeated."
        ),
    ] = None,
    defense: DefenseOption = None,
    goals: Annotated[
        str | None,
        typer.Option(
            help="Prompts that say openly what the attacker wants, such as lab:explicit; each is "
            "attacked."
        ),
    ] = None,
    examples: Annotated[
        str | None, typer.Option(help="Other such prompts, for what is learned beforehand.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="The attacker's own detector; by default the one of --detector."),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(help="The attacker's own CLIP model: a folder, a hub id, or lab."),
    ] = None,
    unsafe: UnsafeOption = None,
    benign: BenignOption = None,
    near_miss: NearMissOption = None,
    detector: DetectorOption = None,
    objects: ObjectsOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    concept_text: ConceptTextOption = None,
    concept: ConceptOption = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="Goals of the lab, and prompts of each other kind in the preset; by default 16.",
            min=1,
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose patches the preset takes, such as that of 'safegen evaluate "
            "--preset lab'; by default --out."
        ),
    ] = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    require: RequireOption = None,
    save_prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the prompts that attacks found, with where they come from, as a prompt set "
            "(.csv or .jsonl).",
        ),
    ] = None,
    transfer_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEFENSE",
            help="Draw the saved prompts with this defense of the run as well; by default with "
            "all. May be repeated.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder: results, table and report.")] = Path(
        "runs/attack"
    ),
    allow_other_code: OtherCodeOption = False,
    unblurred: UnblurredOption = False,
    listed: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--list", callback=_list, is_eager=True, help="Print all attacks' names."),
    ] = False,
    *,
    loading: LoadOptions,
) -> None:
    """Attack a model that you hold, under each defense anew: success rates beside their budgets.

    Results, table and report are those of 'safegen evaluate'. The same command goes on with a run
    that was interrupted; one with further attacks or defenses adds them.
    """
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.requirements import Requirement
    from safegen.lab.attack_table import DETECTOR

    requirements = [Requirement.parse(text) for text in require or []]
    if preset is None and model == "lab":
        detector, clip = detector or DETECTOR, clip or "lab"
    chosen = _preset(model, preset, count, patches or out)
    attacker = {"goals": goals, "examples": examples, "judge": judge or detector, "clip": clip}
    lists = {
        "defenses": defense if defense or chosen else ["none"],
        "unsafe": unsafe,
        "benign": benign,
        "near_miss": near_miss,
        "observers": runs.observers(detector, objects, clip if benign or near_miss else None),
    }
    values = {
        "samples": samples,
        "seed": seed,
        "batch": batch,
        "threads": threads,
        "precision": precision,
        "concept": runs.concept_of("lab" if preset else model, concept_text, concept),
        "allow_other_code": allow_other_code,
        **runs.given(loading),
        "attack": _attack(tuple(attack or ()), model, chosen, count, attacker),
    }
    sampling = {"steps": steps, "guidance": guidance, "sampler": sampler}
    console = Console()
    settings = runs.settings_from(model, chosen, lists, values, sampling)
    made = (patches or out) if preset is not None else None
    runs.prepare(settings, requirements, made, console)
    saving = _saving(save_prompts, transfer_to, settings)
    options = ExecutorOptions(workers or runs.workers_of(preset, executor), ray_address)
    table = runs.run(settings, out, executor, options, console)
    showing.write(table, settings, out, console, unblurred=unblurred)
    if saving is not None:
        _save(saving, settings, out, executor, options, console)
    runs.exit_if_missed(requirements, table)


def _preset(
    model: str | None, name: str | None, count: int | None, patches: Path
) -> EvaluationSettings | None:
    """The settings of a preset, if one was asked for."""
    runs.check_preset(model, name)
    if name is None:
        return None
    from safegen.lab.attack_table import COUNT, lab_attack_settings

    return lab_attack_settings(patches, count or COUNT)


def _attack(
    attacks: tuple[str, ...],
    model: str | None,
    preset: EvaluationSettings | None,
    count: int | None,
    given: dict[str, str | None],
) -> AttackSettings:
    """The attacks, by an attacker with what was given, or what there is on the lab."""
    from dataclasses import replace

    from safegen.errors import SafegenError
    from safegen.evaluation.settings import AttackSettings
    from safegen.lab.attack_table import COUNT, lab_attack

    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if preset is not None and preset.attack is not None:
        return replace(preset.attack, attacks=(*preset.attack.attacks, *attacks), **chosen)
    if count is not None and (model != "lab" or "goals" in chosen):
        raise SafegenError("--count is for the goals of the lab; in a spec write count=N")
    if model == "lab":
        return replace(lab_attack(attacks, count or COUNT), **chosen)
    for name, what, option in (
        ("goals", "prompts that say what the attacker wants", "--goals own:FILE"),
        ("judge", "a detector that judges its pictures", "--detector nudenet"),
    ):
        if name not in chosen:
            raise SafegenError(f"an attack needs {what}; give {option}")
    return AttackSettings(attacks, **chosen)


def _saving(
    path: Path | None, transfer_to: list[str] | None, settings: EvaluationSettings
) -> Saving | None:
    """Where found prompts go, if they were asked for."""
    from safegen.errors import SafegenError
    from safegen.evaluation.found_prompts import Saving, check_saving

    if path is None:
        if transfer_to:
            raise SafegenError("--transfer-to is for the prompts of --save-prompts; give it a file")
        return None
    saving = Saving(path, tuple(transfer_to) if transfer_to else None)
    check_saving(saving, settings)
    return saving


def _save(
    saving: Saving,
    settings: EvaluationSettings,
    out: Path,
    executor: str,
    options: ExecutorOptions,
    console: Console,
) -> None:
    from safegen.evaluation.found_prompts import save_prompts

    with runs.shown(console) as told:
        count = save_prompts(saving, settings, out, executor, options, **told)
    said = f"{count} found prompts: {saving.path}"
    console.print(said if count else f"no attack found a prompt, so there is no {saving.path}")
