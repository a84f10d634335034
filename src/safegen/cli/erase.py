"""``safegen erase``: make the patch of a weight-editing baseline."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli._options import check_out_file
from safegen.cli.loading import Model, takes_load_options
from safegen.models.options import LoadOptions


@takes_load_options
def erase(
    model: Model,
    method: Annotated[
        str,
        typer.Option(
            help="SPEC of the eraser: esd-x (cross-attention), esd-u (all but it), uce, rece, duo "
            "or advunlearn, with settings such as esd-x,iterations=500,seed=1 or 'uce,preserved=a "
            "spoon+a cup'."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Patch to write (.safetensors).")],
    concept_text: Annotated[
        str | None,
        typer.Option(help="What to erase, e.g. 'knife, pistol'; each part is erased by itself."),
    ] = None,
    concept: Annotated[
        str | None, typer.Option(help="Name of the concept, recorded in the patch.")
    ] = None,
    *,
    loading: LoadOptions,
) -> None:
    """Erase a concept by its text, with ESD, UCE, RECE, DUO or AdvUnlearn, to compare
    safegen with.

    Settings default to those of the model's profile, else to the published ones. Apply the patch
    with --defense esd:PATCH, uce:PATCH, rece:PATCH, duo:PATCH or
    advunlearn:PATCH.
    """
    from safegen.cli._console import Console
    from safegen.cli._progress import PhaseProgress
    from safegen.defenses.erasing import create_eraser
    from safegen.errors import SafegenError
    from safegen.models.loading import load_pipeline
    from safegen.profiles import concept_for, profile_of

    check_out_file(out, model)
    eraser = create_eraser(method, profile_of(model))
    erased = concept_for(model, concept_text, concept)
    if erased is None:
        raise SafegenError("say what to erase: --concept-text 'knife, pistol'")
    pipeline = load_pipeline(model, **vars(loading))
    with PhaseProgress(Console(stderr=True)) as progress:
        show = functools.partial(progress.show, "erasing")
        patch = eraser.erase(pipeline, erased, show)
    patch.save(out)
    typer.echo(f"wrote {out}; {len(patch.differences)} weights changed")
