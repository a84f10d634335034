"""``safegen generate``: seeded pictures and a manifest of how they were made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import Model, takes_load_options
from safegen.models.options import LoadOptions


@takes_load_options
def generate(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and manifest.json.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SET:PLACE",
            help="A text file with one prompt a line, or a prompt set such as i2p:FILE, "
            "coco:FILE,count=100 or lab:explicit.",
        ),
    ] = None,
    patch: Annotated[Path | None, typer.Option(help="Apply this patch first.")] = None,
    defense: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Put this on, over the patch: sld-max, safety-filter, esd:PATCH+safety-filter "
            "and others.",
        ),
    ] = None,
    concept_text: Annotated[
        str | None, typer.Option(help="What a --defense is told to avoid: 'knife, pistol'.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Pictures a prompt.", min=1)] = 1,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Base seed of all pictures, also instead of a prompt set's own seeds; "
            "by default those, and base 0."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Guidance scale, also instead of a prompt set's own; 1 turns it off; "
            "by default those, and 5."
        ),
    ] = None,
    sampler: Annotated[str, typer.Option(help="ddim, dpm++ or euler.")] = "ddim",
    negative_prompt: Annotated[str, typer.Option(help="What to move away from.")] = "",
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 8,
    *,
    loading: LoadOptions,
) -> None:
    """Generate pictures; each depends on the model, its prompt, its seed and the settings only."""
    from rich.progress import track

    from safegen.cli._generation import (
        generate_files,
        list_prompts,
        origin_of,
        resolve_prompts,
        text_prompts,
    )
    from safegen.defenses import create_defense
    from safegen.errors import SafegenError
    from safegen.models.loading import load_pipeline
    from safegen.models.sampling import SamplingSettings
    from safegen.profiles import concept_for

    if concept_text is not None and defense is None:
        raise SafegenError("--concept-text has no effect without --defense; leave it out")
    settings = SamplingSettings(steps=steps, sampler=sampler, negative_prompt=negative_prompt)
    if guidance is not None:
        settings = dataclasses.replace(settings, guidance=guidance)
    listed, identity = (
        list_prompts(prompts, local_files_only=loading.local_files_only) if prompts else ([], None)
    )
    jobs = resolve_prompts(
        [*text_prompts(prompt or []), *listed], samples, settings, seed=seed, guidance=guidance
    )
    origin = origin_of(identity, seed, guidance)
    chosen = None
    if defense is not None:
        concept = concept_for(model, concept_text)
        chosen = create_defense(defense, concept, local_files_only=loading.local_files_only)
    pipeline = load_pipeline(model, **vars(loading))
    written = generate_files(
        pipeline, jobs, settings, out, model, patch, batch, origin, defense=chosen
    )
    for _ in track(written, total=len(jobs), description="generating"):
        pass
    typer.echo(f"wrote {len(jobs)} pictures and manifest.json to {out}")
