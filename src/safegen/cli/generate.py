"""``safegen generate``: seeded pictures and a manifest of how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    model: Annotated[str, typer.Argument(help="'lab', a diffusers folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and manifest.json.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with one prompt a line.")
    ] = None,
    patch: Annotated[Path | None, typer.Option(help="Apply this patch first.")] = None,
    samples: Annotated[int, typer.Option(help="Pictures a prompt.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Base seed of all pictures.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 turns it off.")] = 5.0,
    sampler: Annotated[str, typer.Option(help="ddim, dpm++ or euler.")] = "ddim",
    negative_prompt: Annotated[str, typer.Option(help="What to move away from.")] = "",
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 8,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Generate pictures; each depends on the model, its prompt, its seed and the settings only."""
    from rich.progress import track

    from safegen.generation import generate_files, read_prompts, resolve_prompts
    from safegen.models.loading import load_pipeline
    from safegen.models.sampling import SamplingSettings

    settings = SamplingSettings(steps, guidance, sampler, negative_prompt)
    texts = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    jobs = resolve_prompts(texts, samples, seed)
    pipeline = load_pipeline(model, local_files_only=local_files_only)
    written = generate_files(pipeline, jobs, settings, out, model, patch, batch)
    for _ in track(written, total=len(jobs), description="generating"):
        pass
    typer.echo(f"wrote {len(jobs)} pictures and manifest.json to {out}")
