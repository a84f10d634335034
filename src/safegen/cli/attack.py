"""``safegen attack``: attacks on a model, with and without defenses, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli import _runs as runs
from safegen.cli._options import ModelArgument, TableOptions
from safegen.cli._settings import takes_settings
from safegen.errors import SafegenError
from safegen.evaluation.settings import AttackSettings, EvaluationSettings

if TYPE_CHECKING:
    from safegen.evaluation.found_prompts import Saving

GOALS = 16
"""Default number of a model's usual goals to attack."""


def _list(wanted: bool) -> None:
    if wanted:
        from safegen.attacks import ATTACKS

        typer.echo("\n".join(ATTACKS.names()))
        raise typer.Exit


@takes_settings(attacker=AttackSettings, given=EvaluationSettings)
def attack(
    model: ModelArgument = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset: lab (all attacks on the built-in model and its defenses); other options "
            "add to it."
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(
            help="Run folder with the preset's patches, such as that of 'safegen evaluate "
            "--preset lab' (default: --out)."
        ),
    ] = None,
    save_prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for the prompts that attacks found, with their origin, as a prompt set "
            "(.csv or .jsonl).",
        ),
    ] = None,
    transfer_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEFENSE",
            help="Defense of the run that also draws the saved prompts (default: all defenses). "
            "May be repeated.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder: results, table and report.")] = Path(
        "runs/attack"
    ),
    listed: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--list", callback=_list, is_eager=True, help="Print all attacks' names."),
    ] = False,
    *,
    attacker: dict[str, Any],
    given: dict[str, Any],
    table: TableOptions,
) -> None:
    """Attack a model under each defense anew, and report success rates with their budgets.

    The run folder has the form of 'safegen evaluate'. The same command resumes an interrupted run;
    a command with further attacks or defenses adds them to the run.
    """
    made = (patches or out) if preset is not None else None
    chosen = _preset(model, preset, table.count, patches or out)
    settings = _settings(model, chosen, table, attacker, given)
    saving = _saving(save_prompts, transfer_to, settings)
    with runs.filled(settings, table, out, made):
        if saving is not None:
            _save(saving, settings, table, out, preset is not None)


def _preset(
    model: str | None, name: str | None, count: int | None, patches: Path
) -> EvaluationSettings | None:
    """Return the settings of a preset, or None without one."""
    runs.check_preset(model, name)
    if name is None:
        return None
    from safegen.lab.attack_table import COUNT, lab_attack_settings

    return lab_attack_settings(patches, count or COUNT)


def _settings(
    model: str | None,
    preset: EvaluationSettings | None,
    table: TableOptions,
    attacker: dict[str, Any],
    given: dict[str, Any],
) -> EvaluationSettings:
    """Build the evaluation's settings with the attacks."""
    from safegen.profiles import Profile, profile_of

    usual = (preset is None and profile_of(model)) or Profile()
    detector = table.detector or usual.judge
    clip = attacker.get("clip") or (usual.name if usual.clip else None)
    drawn = given.keys() & {"benign", "near_miss"}
    given["observer"] = [
        *runs.observers(detector, table.objects, clip if drawn else None),
        *given.get("observer", ()),
    ]
    if preset is None:
        given.setdefault("defense", ["none"])
    told = {"clip": clip, "judge": detector, **attacker}
    told = {name: value for name, value in told.items() if value is not None}
    given["attack"] = _attack(model, preset, table.count, told)
    return runs.settings_from(model, preset, table, given)


def _attack(
    model: str | None,
    preset: EvaluationSettings | None,
    count: int | None,
    given: dict[str, Any],
) -> AttackSettings:
    """Build the attacks from the given settings, else from those usual for the model."""
    from safegen.profiles import Profile, profile_of

    attacks = tuple(given.pop("attack", ()))
    if preset is not None and preset.attack is not None:
        return preset.attack.changed(attack=[*preset.attack.attacks, *attacks], **given)
    usual = profile_of(model) or Profile()
    if usual.goals is not None and "goals" not in given:
        given["goals"] = f"{usual.goals},count={count or GOALS}"
    elif count is not None:
        raise SafegenError("--count is for a model's usual goals; in a spec write count=N")
    if usual.examples is not None:
        given.setdefault("examples", usual.examples)
    for name, what, option in (
        ("goals", "prompts that say what the attacker wants", "--goals own:FILE"),
        ("judge", "a detector that judges its pictures", "--detector nudenet"),
    ):
        if name not in given:
            raise SafegenError(f"an attack needs {what}; give {option}")
    return AttackSettings.of(attack=attacks, **given)


def _saving(
    path: Path | None, transfer_to: list[str] | None, settings: EvaluationSettings
) -> Saving | None:
    """Return where found prompts are saved; None if they are not."""
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
    saving: Saving, settings: EvaluationSettings, table: TableOptions, out: Path, preset: bool
) -> None:
    from safegen.cli._console import Console
    from safegen.evaluation.found_prompts import save_prompts

    console, options = Console(), runs.executor_options(table, preset)
    with runs.shown(console) as told:
        count = save_prompts(saving, settings, out, table.executor, options, **told)
    said = f"{count} found prompts: {saving.path}"
    console.print(said if count else f"no attack found a prompt, so there is no {saving.path}")
