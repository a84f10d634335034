"""``safegen edit``: train the edit and write its patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.loading import Model, Preset, takes_load_options
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.editing.memory.prediction import EditMemory
    from safegen.editing.run import EditPlan
    from safegen.editing.settings import EditSettings

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
"""What the table calls the components of an edit's memory."""


@takes_load_options
def edit(
    model: Model,
    triplets: Annotated[
        Path, typer.Option(help="Latents from 'safegen triplets', or a CSV of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="The patch to write (.safetensors).")],
    preset: Preset = None,
    scope: Annotated[
        str | None,
        typer.Option(help="What to train: self-attention, or self-attention+output."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="exact, or paper: the paper's objective with its published settings."),
    ] = None,
    preservation: Annotated[
        str | None, typer.Option(help="teacher (the frozen original) or noise.")
    ] = None,
    redirect_mixture: Annotated[
        str | None,
        typer.Option(help="Texts of the unsafe half, e.g. empty=0.5,adversarial=0.5."),
    ] = None,
    preserve_mixture: Annotated[
        str | None, typer.Option(help="Texts of the benign half, e.g. empty=0.3,caption=0.7.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Unsafe pairs a step.")] = None,
    benign_batch: Annotated[
        int | None, typer.Option(help="Benign pictures a step; by default as many as pairs.")
    ] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw, or muon for all that are matrices.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW; Muon's follows from it.")
    ] = None,
    redirect_weight: Annotated[float | None, typer.Option(help="lambda_m.")] = None,
    preserve_weight: Annotated[float | None, typer.Option(help="lambda_p.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale at which guided predictions count as well; 1: they do not."),
    ] = None,
    overshoot: Annotated[
        float | None,
        typer.Option(help="How far past the censored form to redirect, as a share of the way."),
    ] = None,
    unsafe_noise: Annotated[
        float | None,
        typer.Option(help="How much of the unsafe the noise may hold too, as a factor."),
    ] = None,
    patchwork: Annotated[
        float | None,
        typer.Option(help="Share of the pictures that have a rectangle of another one in them."),
    ] = None,
    rehearsal: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps that are taken where a rehearsed benign fine-tuning leads."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(
            help="Train factors of this rank instead of whole weights, for small cards "
            "(extra 'lora'); the learning rate is then ten times as high by default."
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16.")] = None,
    frozen_precision: Annotated[
        str | None,
        typer.Option(help="Of the weights that are not trained; by default as --precision."),
    ] = None,
    gradient_checkpointing: Annotated[
        str | None,
        typer.Option(
            help="none, selective (keeps what is dear to compute) or full: less memory, slower."
        ),
    ] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between two.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    concept: Annotated[str, typer.Option(help="Name of what is removed.")] = "unsafe",
    run_folder: Annotated[
        Path | None,
        typer.Option(help="Checkpoints and logs; by default beside the patch, as NAME.run."),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Finds the region where the CSV has no censored picture.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained, memory and time.")
    ] = False,
    *,
    loading: LoadOptions,
) -> None:
    """Edit a model's self-attention so that the unsafe dissolves into its censored form.

    No text that asks for the unsafe is seen, and no weight that takes a text is trained.

    An interrupted edit goes on where it was when the same command is given again. On several
    GPUs: accelerate launch -m safegen edit …; the batch is divided among them.
    """
    settings = _settings(
        model,
        preset,
        objective,
        {
            "scope": scope,
            "preservation": preservation,
            "redirect_mixture": redirect_mixture,
            "preserve_mixture": preserve_mixture,
            "steps": steps,
            "batch": batch,
            "benign_batch": benign_batch,
            "accumulation": accumulation,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "redirect_weight": redirect_weight,
            "preserve_weight": preserve_weight,
            "guidance": guidance,
            "overshoot": overshoot,
            "unsafe_noise": unsafe_noise,
            "patchwork": patchwork,
            "rehearsal": rehearsal,
            "lora_rank": lora_rank,
            "precision": precision,
            "frozen_precision": frozen_precision,
            "gradient_checkpointing": gradient_checkpointing,
            "checkpoint_every": checkpoint_every,
            "seed": seed,
        },
    )
    from accelerate import PartialState

    from safegen.cli._edit_progress import EditProgress
    from safegen.editing.run import edit as run_edit
    from safegen.editing.run import plan

    pipeline = _load(model, settings, loading)
    latents = _latents(pipeline, triplets, detector)
    if dry_run:
        _print_plan(plan(pipeline, latents, settings, on_prediction=_print_verdict))
        return
    folder = run_folder or out.with_suffix(".run")
    with EditProgress(settings.steps) as progress:
        patch = run_edit(
            pipeline,
            latents,
            settings,
            concept=concept,
            run_folder=folder,
            on_record=progress.show,
            keep_pipeline=False,
        )
    if PartialState().is_main_process:
        patch.save(out)
        count = len(patch.differences)
        typer.echo(f"wrote {out}; {count} weights of {settings.scope} changed, no other")


def _settings(
    model: str, preset: str | None, objective: str | None, given: dict[str, Any]
) -> EditSettings:
    from dataclasses import replace

    from safegen.editing.settings import LORA_RATE, EditSettings, Mixture

    ours = EditSettings.lab() if model == "lab" else EditSettings()
    settings = (EditSettings.paper() if objective == "paper" else ours).preset(preset)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("redirect_mixture", "preserve_mixture"):
        if name in chosen:
            chosen[name] = Mixture.parse(chosen[name])
    if objective is not None:
        chosen["objective"] = objective
    if "lora_rank" in chosen:
        chosen.setdefault("optimizer", "adamw")
        chosen.setdefault("learning_rate", LORA_RATE * settings.learning_rate)
    return replace(settings, **chosen)


def _latents(pipeline: Any, triplets: Path, detector: str | None) -> Any:
    from safegen.editing.latents import TripletLatents, encode_triplets
    from safegen.triplets.reading import CsvTriplets

    if triplets.suffix.lower() != ".csv":
        return TripletLatents.load(triplets)
    from safegen.detectors import create_detector

    finder = create_detector(detector) if detector else None
    return encode_triplets(pipeline, CsvTriplets(triplets, detector=finder))


def _load(model: str, settings: EditSettings, loading: LoadOptions) -> Any:
    """The pipeline, with its denoiser in half precision if that is how it will be kept."""
    import torch

    from safegen.editing.memory.precision import frozen_dtype
    from safegen.models.anatomy import denoiser_of
    from safegen.models.loading import default_device, load_pipeline

    if frozen_dtype(settings) == torch.float32:
        return load_pipeline(model, **vars(loading))
    pipeline = load_pipeline(model, device="cpu", **vars(loading))
    # The half precision that fingerprints are made of, so that they stay the same.
    denoiser_of(pipeline).to(torch.float16)
    return pipeline.to(default_device())


def _print_verdict(memory: EditMemory) -> None:
    """Which cards suffice, before anything is tried."""
    from safegen.editing.memory.prediction import CARDS

    verdicts = (
        f"{card} GiB {'suffices' if memory.fits(card) else 'is too small'}" for card in CARDS
    )
    typer.echo(f"predicted peak {_size(memory.total)}; a card of {', of '.join(verdicts)}")


def _print_plan(plan: EditPlan) -> None:
    from rich.table import Table

    from safegen.cli._console import Console

    share = plan.trained / plan.total
    typer.echo(f"trained weights: {plan.trained:,} of {plan.total:,} ({share:.1%})")
    typer.echo(f"trained tensors: {len(plan.names)}, {plan.names[0]} … {plan.names[-1]}")
    table = Table("memory", "predicted", "measured", title="What this edit would take")
    for part in (*vars(plan.predicted), "total"):
        sizes = [_size(getattr(memory, part)) for memory in (plan.predicted, plan.measured)]
        table.add_row(PARTS[part], *sizes)
    Console().print(table)
    typer.echo(f"latents, in the processor's memory: {_size(plan.latent_bytes)}")
    typer.echo(f"highest memory of the process or GPU so far: {_size(plan.peak_bytes)}")
    typer.echo(f"time: about {plan.seconds:,.0f} s at the trial steps' pace")


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
