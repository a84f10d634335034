"""``safegen edit``: train the edit and write its patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._options import check_out_file
from safegen.cli._settings import takes_settings
from safegen.cli.loading import Model, Preset
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.files import check_regular
from safegen.models.options import LoadOptions
from safegen.settings import options

if TYPE_CHECKING:
    from safegen.editing.memory.components import EditMemory
    from safegen.editing.run import EditPlan

PARTS = {
    "frozen": "frozen weights",
    "trained": "trained weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "average": "moving average",
    "rehearsal": "rehearsed fine-tuning",
    "activations": "activations",
    "total": "total",
}
"""Names of the components of an edit's memory in the printed table."""


Concept = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.yaml",
        help="Concept to remove. Probes by the detector of a known one, such as weapons, end the "
        "edit at its targets; of any other, the name alone is kept in the patch.",
    ),
]
Until = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TARGET",
        help="Share that ends the edit (default: 'removal>=0.99', 'retention>=0.97' and "
        "'near-miss-retention>=0.92'); may be repeated.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of checkpoints and logs (default: NAME.run beside the patch)."),
]
Finder = Annotated[
    str | None, typer.Option(help="Detector for pairs without a censored picture in the CSV.")
]


@takes_settings(given=EditSettings)
def edit(
    model: Model,
    triplets: Annotated[
        Path, typer.Option(help="Latents from 'safegen triplets', or a CSV of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="Patch to write (.safetensors).")],
    preset: Preset = None,
    concept: Concept = "unsafe",
    until: Until = None,
    run_folder: RunFolder = None,
    detector: Finder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print settings, trained weights, memory, time.")
    ] = False,
    *,
    given: dict[str, Any],
    loading: LoadOptions,
) -> None:
    """Train a model's self-attention to turn unsafe pictures into their censored form.

    Training needs no unsafe prompt, and changes no weight that reads text.

    The same command resumes an interrupted edit. On several GPUs, the batch is divided among them:
    accelerate launch -m safegen edit ARGUMENTS.
    """
    settings = edit_settings(preset, given)
    folder = run_folder or out.with_suffix(".run")
    check_out_file(out, triplets, model)
    _check_files(triplets, folder, detector)
    from accelerate import PartialState

    from safegen.cli._console import Console
    from safegen.cli._progress import EditProgress
    from safegen.editing import run

    probing = _probing(concept, until, model, loading.local_files_only)
    pipeline = load_for(model, settings, loading)
    latents = _latents(pipeline, triplets, detector, loading.local_files_only)
    if dry_run:
        _print_settings(settings)
        _print_plan(run.plan(pipeline, latents, settings, on_prediction=_print_verdict))
        return
    if probing["probing"] is None:
        typer.echo(f"no probes of {concept!r}: the edit takes all of its steps", err=True)
    with EditProgress(Console(stderr=True)) as progress:
        patch = run.edit(
            pipeline,
            latents,
            settings,
            run_folder=folder,
            on_record=progress.show_step,
            keep_pipeline=False,
            **probing,
        )
    if PartialState().is_main_process:
        patch.save(out)
        count = len(patch.differences)
        typer.echo(f"wrote {out}; {count} weights of {settings.scope} changed, no other")


def _check_files(triplets: Path, run_folder: Path, detector: str | None) -> None:
    if run_folder.is_file():
        raise SafegenError(f"--run-folder {run_folder}: is a file; name a folder")
    if detector and triplets.suffix.lower() != ".csv":
        raise SafegenError("--detector is for pairs in a CSV; leave it out")
    check_regular(triplets)


def edit_settings(preset: str | None, given: dict[str, Any]) -> EditSettings:
    """Choose the settings of an edit: the defaults, a preset's, the given."""
    start = EditSettings.paper() if given.get("objective") == "paper" else EditSettings()
    return start.preset(preset).changed(**given)


def _probing(
    concept: str, until: list[str] | None, model: str, local_files_only: bool
) -> dict[str, Any]:
    """Look up a concept's name, its probes and their targets."""
    from safegen.concepts import CONCEPTS, load_concept
    from safegen.editing.probes import TARGETS, Target
    from safegen.evaluation.probing import probe_sources
    from safegen.profiles import Profile, profile_of

    name, probing = concept, None
    targets = [Target.parse(text) for text in until or ()]
    if Path(concept).suffix in (".yaml", ".yml") or concept in CONCEPTS.names():
        known, usual = load_concept(concept), profile_of(model) or Profile()
        name = known.name
        probing = probe_sources(known, usual, local_files_only=local_files_only)
    for target in targets:
        if probing is None or target.measure not in probing.measures:
            raise SafegenError(
                f"--until {target}: no probe of {name!r} on this model measures it; leave it out, "
                "or give a --concept with a detector and such prompts"
            )
    return {"concept": name, "probing": probing, "targets": targets or TARGETS}


def _latents(pipeline: Any, triplets: Path, detector: str | None, local_files_only: bool) -> Any:
    from safegen.editing.latents import TripletLatents, encode_triplets
    from safegen.triplets.files import list_csv
    from safegen.triplets.reading import FileTriplets

    if triplets.suffix.lower() != ".csv":
        return TripletLatents.load(triplets)
    from safegen.detectors import create_detector

    finder = None
    if detector:
        finder = create_detector(detector, local_files_only=local_files_only)
    return encode_triplets(pipeline, FileTriplets(list_csv(triplets), detector=finder))


def load_for(model: str, settings: EditSettings, loading: LoadOptions) -> Any:
    """Load the pipeline, with its denoiser in half precision if the edit keeps it so."""
    import torch

    from safegen.editing.memory.precision import frozen_dtype
    from safegen.models.anatomy import denoiser_of
    from safegen.models.loading import default_device, load_pipeline

    if frozen_dtype(settings) == torch.float32:
        return load_pipeline(model, **vars(loading))
    pipeline = load_pipeline(model, device="cpu", **vars(loading))
    # Fingerprints are made of float16 weights, so loading in float16 does not change them.
    denoiser_of(pipeline).to(torch.float16)
    return pipeline.to(default_device())


def _print_verdict(memory: EditMemory) -> None:
    """Print which graphics cards suffice, before the trial steps."""
    from safegen.editing.memory.components import CARDS

    verdicts = (
        f"{card} GiB {'suffices' if memory.fits(card) else 'is too small'}" for card in CARDS
    )
    typer.echo(f"predicted peak {_size(memory.total)}; a card of {', of '.join(verdicts)}")


def _print_settings(settings: EditSettings) -> None:
    """Print the settings in the form of a settings file."""
    for option in options(EditSettings):
        group = getattr(settings, option.group) if option.group else settings
        typer.echo(f"{option.name}: {option.written(getattr(group, option.field))}")


def _print_plan(plan: EditPlan) -> None:
    share = plan.trained / plan.total
    typer.echo(f"trained weights: {plan.trained:,} of {plan.total:,} ({share:.1%})")
    typer.echo(f"trained tensors: {len(plan.names)}, {plan.names[0]} … {plan.names[-1]}")
    if plan.predicted is None or plan.measured is None:
        typer.echo("memory: neither predicted nor measured with --plain-kernels")
    else:
        _print_memory(plan.predicted, plan.measured)
    typer.echo(f"latents, in the processor's memory: {_size(plan.latent_bytes)}")
    if plan.peak_bytes is not None:
        typer.echo(f"highest memory of the process or GPU so far: {_size(plan.peak_bytes)}")
    typer.echo(
        f"time: about {plan.seconds:,.0f} s at the trial's pace (steps "
        f"{plan.step_seconds:,.0f}, rehearsals {plan.rehearsal_seconds:,.0f})"
    )


def _print_memory(predicted: EditMemory, measured: EditMemory) -> None:
    from rich.table import Table

    from safegen.cli._console import Console

    table = Table("memory", "predicted", "measured", title="What this edit would take")
    for part in (*vars(predicted), "total"):
        table.add_row(PARTS[part], *(_size(getattr(each, part)) for each in (predicted, measured)))
    Console().print(table)


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
