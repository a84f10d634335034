"""``safegen edit``: train the edit and write its patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from safegen.editing.run import EditPlan
    from safegen.editing.settings import EditSettings


def edit(
    model: Annotated[str, typer.Argument(help="'lab', a diffusers folder, or a hub id.")],
    triplets: Annotated[
        Path, typer.Option(help="Latents from 'safegen triplets', or a CSV of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="The patch to write (.safetensors).")],
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
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    redirect_weight: Annotated[float | None, typer.Option(help="lambda_m.")] = None,
    preserve_weight: Annotated[float | None, typer.Option(help="lambda_p.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale at which guided predictions count as well; 1: they do not."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16.")] = None,
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
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Edit a model's self-attention so that the unsafe dissolves into its censored form.

    An interrupted edit goes on where it was when the same command is given again. On several
    GPUs: accelerate launch -m safegen edit …; the batch is divided among them.
    """
    settings = _settings(
        model,
        objective,
        {
            "preservation": preservation,
            "redirect_mixture": redirect_mixture,
            "preserve_mixture": preserve_mixture,
            "steps": steps,
            "batch": batch,
            "benign_batch": benign_batch,
            "accumulation": accumulation,
            "learning_rate": learning_rate,
            "redirect_weight": redirect_weight,
            "preserve_weight": preserve_weight,
            "guidance": guidance,
            "precision": precision,
            "checkpoint_every": checkpoint_every,
            "seed": seed,
        },
    )
    from accelerate import PartialState

    from safegen.editing.progress import EditProgress
    from safegen.editing.run import edit as run_edit
    from safegen.editing.run import plan
    from safegen.models.loading import load_pipeline

    pipeline = load_pipeline(model, local_files_only=local_files_only)
    latents = _latents(pipeline, triplets, detector)
    if dry_run:
        _print_plan(plan(pipeline, latents, settings))
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
        )
    if PartialState().is_main_process:
        patch.save(out)
        count = len(patch.differences)
        typer.echo(f"wrote {out}; {count} self-attention weights changed, no other")


def _settings(model: str, objective: str | None, given: dict[str, Any]) -> EditSettings:
    from dataclasses import replace

    from safegen.editing.settings import EditSettings, Mixture

    ours = EditSettings.lab() if model == "lab" else EditSettings()
    settings = EditSettings.paper() if objective == "paper" else ours
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("redirect_mixture", "preserve_mixture"):
        if name in chosen:
            chosen[name] = Mixture.parse(chosen[name])
    if objective is not None:
        chosen["objective"] = objective
    return replace(settings, **chosen)


def _latents(pipeline: Any, triplets: Path, detector: str | None) -> Any:
    from safegen.editing.latents import TripletLatents, encode_triplets
    from safegen.triplets.reading import CsvTriplets

    if triplets.suffix.lower() != ".csv":
        return TripletLatents.load(triplets)
    from safegen.detectors import create_detector

    finder = create_detector(detector) if detector else None
    return encode_triplets(pipeline, CsvTriplets(triplets, detector=finder))


def _print_plan(plan: EditPlan) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What this edit would take", show_header=False)
    share = plan.trained / plan.total
    table.add_row("trained weights", f"{plan.trained:,} of {plan.total:,} ({share:.1%})")
    table.add_row("trained tensors", f"{len(plan.names)}, {plan.names[0]} … {plan.names[-1]}")
    table.add_row("denoiser's weights", f"{plan.weight_bytes / 2**20:,.0f} MiB")
    table.add_row("gradients, optimizer, average", f"{plan.training_bytes / 2**20:,.0f} MiB")
    table.add_row("highest memory in the trial steps", f"{plan.peak_bytes / 2**20:,.0f} MiB")
    table.add_row("time", f"about {plan.seconds:,.0f} s at the trial steps' pace")
    Console().print(table)
