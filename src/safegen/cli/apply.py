"""``safegen apply``: write a hardened pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._options import check_out
from safegen.cli.loading import Model, takes_load_options
from safegen.files import check_regular
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.patches.patch import Patch


@takes_load_options
def apply(
    model: Model,
    patch: Annotated[Path, typer.Argument(help="Patch to apply (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the complete hardened pipeline.")],
    half: Annotated[bool, typer.Option(help="Write weights in half precision.")] = False,
    *,
    loading: LoadOptions,
) -> None:
    """Apply a patch and write the result as a complete diffusers pipeline.

    'safegen export --format diffusers' does the same; export writes other formats too.
    """
    check_out(out, model, patch)
    check_regular(patch)

    from safegen.patches.folder import refuse_full_folder, save_pipeline
    from safegen.patches.patch import Patch

    refuse_full_folder(out)
    save_pipeline(hardened(model, Patch.load(patch), loading), out, half=half)
    typer.echo(f"wrote {out}")


def hardened(model: str, patch: Patch, loading: LoadOptions) -> Any:
    """Load a model on the CPU and apply a patch; warnings go to stderr."""
    from safegen.models.loading import load_pipeline
    from safegen.patches.patch import apply as apply_patch

    pipeline = load_pipeline(model, device="cpu", **vars(loading))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apply_patch(pipeline, patch)
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)
    return pipeline
