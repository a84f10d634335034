"""``safegen apply``: write a hardened pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer


def apply(
    model: Annotated[str, typer.Argument(help="'lab', a diffusers folder, or a hub id.")],
    patch: Annotated[Path, typer.Argument(help="The patch that 'safegen edit' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the complete hardened pipeline.")],
    half: Annotated[bool, typer.Option(help="Write weights in half precision.")] = False,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Apply a patch and write the result as a complete diffusers pipeline."""
    from safegen.editing.export import save_pipeline
    from safegen.editing.patch import Patch
    from safegen.editing.patch import apply as apply_patch
    from safegen.models.loading import load_pipeline

    loaded = Patch.load(patch)
    pipeline = load_pipeline(model, device="cpu", local_files_only=local_files_only)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apply_patch(pipeline, loaded)
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)
    save_pipeline(pipeline, out, half=half)
    typer.echo(f"wrote {out}")
