"""``safegen generate``: seeded pictures and a manifest of how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._options import check_out
from safegen.cli._settings import takes_settings
from safegen.cli.loading import Model
from safegen.files import check_regular
from safegen.models.options import MAX_BATCH, MAX_SAMPLES, LoadOptions, SamplingSettings

if TYPE_CHECKING:
    from safegen.defenses import Defense

Out = Annotated[Path, typer.Option(help="Folder for the pictures and manifest.json.")]
Texts = Annotated[list[str] | None, typer.Option(help="Prompt; may be repeated.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SET:PLACE",
        help="A text file with one prompt a line, or a prompt set such as i2p:FILE, "
        "coco:FILE,count=100 or lab:explicit.",
    ),
]
Patch = Annotated[Path | None, typer.Option(help="Patch to apply first.")]
DefenseSpec = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Defense to apply over the patch: sld-max, safety-filter, esd:PATCH+safety-filter "
        "and others.",
    ),
]
ConceptText = Annotated[
    str | None, typer.Option(help="Concept that --defense avoids: 'knife, pistol'.")
]
Samples = Annotated[int, typer.Option(help="Pictures per prompt.", min=1, max=MAX_SAMPLES)]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Base seed of all pictures, also instead of a prompt set's own seeds "
        "(default: those, and base 0).",
        min=0,
    ),
]
Batch = Annotated[int, typer.Option(help="Pictures at once.", min=1, max=MAX_BATCH)]


@takes_settings(given=SamplingSettings)
def generate(
    model: Model,
    out: Out,
    prompt: Texts = None,
    prompts: Prompts = None,
    patch: Patch = None,
    defense: DefenseSpec = None,
    concept_text: ConceptText = None,
    samples: Samples = 1,
    seed: Seed = None,
    batch: Batch = 8,
    *,
    given: dict[str, Any],
    loading: LoadOptions,
) -> None:
    """Generate pictures; each depends on the model, its prompt, its seed and the settings only.

    In the folder of an earlier run, the pictures that its manifest lists are removed when the
    first new one is drawn. An interrupted run starts anew.
    """
    from safegen.cli import _generation as generation
    from safegen.cli._console import Console
    from safegen.cli._progress import PhaseProgress
    from safegen.models.loading import load_pipeline

    check_out(out, model, patch)
    if patch is not None:
        check_regular(patch)
    offline = loading.local_files_only
    settings, guidance = SamplingSettings.of(**given), given.get("guidance_scale")
    listed, identity = generation.list_prompts(prompts, local_files_only=offline)
    wanted = [*generation.text_prompts(prompt or []), *listed]
    jobs = generation.resolve_prompts(wanted, samples, settings, seed=seed, guidance=guidance)
    origin = generation.origin_of(identity, seed, guidance)
    chosen = _defense(model, defense, concept_text, offline)
    stale = generation.earlier_pictures(out, [job.name for job in jobs])
    pipeline = load_pipeline(model, **vars(loading))
    written = generation.generate_files(
        pipeline, jobs, settings, out, model, patch, batch, origin, chosen, stale
    )
    with PhaseProgress(Console(stderr=True)) as progress:
        for done, _ in enumerate(written, 1):
            progress.show("generating", done, len(jobs))
    replaced = f"; removed {len(stale)} of an earlier run" if stale else ""
    typer.echo(f"wrote {len(jobs)} pictures and manifest.json to {out}{replaced}")


def _defense(
    model: str, spec: str | None, concept_text: str | None, offline: bool
) -> Defense | None:
    from safegen.defenses import create_defense
    from safegen.errors import SafegenError
    from safegen.profiles import concept_for, profile_of

    if spec is not None:
        concept, profile = concept_for(model, concept_text), profile_of(model)
        return create_defense(spec, concept, profile, local_files_only=offline)
    if concept_text is not None:
        raise SafegenError("--concept-text has no effect without --defense; leave it out")
    return None
