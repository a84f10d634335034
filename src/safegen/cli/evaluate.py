"""``safegen evaluate``: defenses against prompt sets on one model, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli import _runs as runs
from safegen.cli._options import (
    BatchOption,
    BenignOption,
    ConceptOption,
    ConceptTextOption,
    CountOption,
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
    from safegen.evaluation.settings import EvaluationSettings


@takes_load_options
def evaluate(
    model: ModelArgument = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="lab: the whole comparison on the built-in model, to which other options add."
        ),
    ] = None,
    defense: DefenseOption = None,
    unsafe: UnsafeOption = None,
    benign: BenignOption = None,
    near_miss: NearMissOption = None,
    detector: DetectorOption = None,
    clip: Annotated[
        str | None, typer.Option(help="For the CLIP score: a folder, a hub id, or lab.")
    ] = None,
    objects: ObjectsOption = None,
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
    count: CountOption = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    require: RequireOption = None,
    out: Annotated[Path, typer.Option(help="Run folder: results, table and report.")] = Path(
        "runs/evaluation"
    ),
    allow_other_code: OtherCodeOption = False,
    unblurred: UnblurredOption = False,
    *,
    loading: LoadOptions,
) -> None:
    """Evaluate defenses on prompt sets: pictures, what was observed of them, one table, a report.

    The same command goes on with a run that was interrupted; one with further defenses or prompt
    sets adds them, and draws only what is new.
    """
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.requirements import Requirement

    requirements = [Requirement.parse(text) for text in require or []]
    lists = {
        "defenses": defense,
        "unsafe": unsafe,
        "benign": benign,
        "near_miss": near_miss,
        "observers": [
            *runs.observers(detector, objects, clip),
            *["inception"] * inception,
            *["lpips"] * lpips,
        ],
    }
    values = {
        "samples": samples,
        "seed": seed,
        "batch": batch,
        "threads": threads,
        "precision": precision,
        "real": real,
        "concept": runs.concept_of("lab" if preset else model, concept_text, concept),
        "allow_other_code": allow_other_code,
        **runs.given(loading),
    }
    sampling = {"steps": steps, "guidance": guidance, "sampler": sampler}
    console = Console()
    settings = runs.settings_from(
        model, _preset(model, preset, count, out), lists, values, sampling
    )
    runs.prepare(settings, requirements, out if preset is not None else None, console)
    options = ExecutorOptions(workers or runs.workers_of(preset, executor), ray_address)
    table = runs.run(settings, out, executor, options, console)
    showing.write(table, settings, out, console, unblurred=unblurred)
    runs.exit_if_missed(requirements, table)


def _preset(
    model: str | None, name: str | None, count: int | None, out: Path
) -> EvaluationSettings | None:
    """The settings of a preset, if one was asked for."""
    from safegen.errors import SafegenError

    runs.check_preset(model, name)
    if name is None:
        if count is not None:
            raise SafegenError("--count belongs to --preset lab; in a spec write count=N")
        return None
    from safegen.lab.table import COUNT, lab_settings

    return lab_settings(out, count or COUNT)
