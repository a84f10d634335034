"""``safegen export``: a patch in the forms that other programs load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safegen.cli.loading import Model, takes_load_options
from safegen.errors import SafegenError
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from safegen.patches.low_rank import LowRankPatch, Ranks
    from safegen.patches.patch import Patch
    from safegen.report.ranks import Effect

Format = Literal["diffusers", "single-file", "lora", "patch"]
Layout = Literal["diffusers", "kohya"]
ENERGY = 0.95
"""What a LoRA keeps of a patch when nothing else is asked for."""
MEGABYTE = 1_000_000
LAB = "lab"
_LORA = "LoRA (--format lora)"
_CARD = "Model card (--format diffusers)"


@takes_load_options
def export(
    model: Model,
    patches: Annotated[
        list[Path], typer.Argument(metavar="PATCH...", help="Patches; several are summed.")
    ],
    to: Annotated[
        Format,
        typer.Option(
            "--format",
            help="A diffusers pipeline, a file in the original layout (A1111, ComfyUI), "
            "a LoRA, or the sum of the patches as one patch.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="What to write: a folder for diffusers, else a file.")],
    scale: Annotated[float, typer.Option(help="Factor on the patches' differences.")] = 1.0,
    half: Annotated[bool, typer.Option(help="Write weights in half precision.")] = False,
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="Names for diffusers, the default, or for kohya's scripts and web UIs.",
            rich_help_panel=_LORA,
        ),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            help=f"Share of the squared differences to keep; by default {ENERGY}.",
            rich_help_panel=_LORA,
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="The same rank everywhere.", rich_help_panel=_LORA)
    ] = None,
    max_megabytes: Annotated[
        float | None, typer.Option(help="The largest file.", rich_help_panel=_LORA)
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(
            help="On the lab: show what each rank removes, on so many validation prompts a kind.",
            min=1,
            rich_help_panel=_LORA,
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            help="summary.json of the evaluation that measured the patch; "
            "its figures become the folder's README.md.",
            rich_help_panel=_CARD,
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            help="Identifier of the base model's licence, if it does not come with the model.",
            rich_help_panel=_CARD,
        ),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the base model.", rich_help_panel=_CARD)
    ] = None,
    *,
    loading: LoadOptions,
) -> None:
    """Turn a patch into what other programs load.

    A LoRA is an approximation: its error at each rank is shown, and what it cannot hold is said.
    """
    sizes = {"energy": energy, "rank": rank, "max-megabytes": max_megabytes}
    of_lora = {"layout": layout, **sizes, "measure": measure}
    of_card = {"summary": summary, "license": license, "base-model": base_model}
    _check(to, of_lora, of_card, half, out)
    _check_lora(model, sizes, measure)

    from safegen.patches.compose import combine
    from safegen.patches.patch import Patch

    patch = combine([Patch.load(path) for path in patches], scale)
    if to == "patch":
        patch.save(out)
    elif to == "lora":
        _lora(model, patch, out, layout or "diffusers", sizes, half, measure, loading)
    elif to == "single-file":
        _single_file(model, patch, out, half, loading)
    else:
        card = _card(model, patches, scale, summary, license, base_model, half)
        _diffusers(model, patch, out, half, card, loading)
    typer.echo(f"wrote {out}")


def _check(
    to: Format, of_lora: Mapping[str, Any], of_card: Mapping[str, Any], half: bool, out: Path
) -> None:
    """Options of another format would have no effect."""
    others = {**({} if to == "lora" else of_lora), **({} if to == "diffusers" else of_card)}
    if to == "patch":
        others["half"] = half or None
    strays = [f"--{name}" for name, value in others.items() if value is not None]
    if strays:
        raise SafegenError(f"{', '.join(strays)}: has no effect on --format {to}; leave it out")
    if to == "diffusers" and of_card["summary"] is None and any(of_card.values()):
        raise SafegenError("--license and --base-model are for the card; give --summary as well")
    if to != "diffusers" and out.suffix != ".safetensors":
        raise SafegenError(f"--out {out}: is written as safetensors; name it so (.safetensors)")


def _check_lora(model: str, sizes: Mapping[str, float | None], measure: int | None) -> None:
    given = [f"--{name}" for name, value in sizes.items() if value is not None]
    if len(given) > 1:
        raise SafegenError(f"{' and '.join(given)} each choose the rank; give one of them")
    if measure is not None and model != LAB:
        raise SafegenError(
            "--measure is for the lab, which has prompts and a detector; measure other models "
            "with 'safegen evaluate'"
        )


def _diffusers(
    model: str,
    patch: Patch,
    out: Path,
    half: bool,
    card: ModelCard | None,
    loading: LoadOptions,
) -> None:
    from safegen.cli.apply import hardened
    from safegen.patches.folder import refuse_full_folder, save_pipeline

    refuse_full_folder(out)
    save_pipeline(hardened(model, patch, loading), out, half=half, card=card)


def _card(
    model: str,
    patches: Sequence[Path],
    scale: float,
    summary: Path | None,
    license: str | None,
    base_model: str | None,
    half: bool,
) -> ModelCard | None:
    """The card with what was measured, if a summary is given."""
    if summary is None:
        return None
    if len(patches) > 1 or scale != 1:
        raise SafegenError(
            "--summary: was measured with one whole patch, and this is a sum or scaled; "
            "write it with --format patch, and evaluate that"
        )
    from safegen.report.export_card import export_card

    return export_card(
        model, patches[0], summary, license=license, base_model=base_model, half=half
    )


def _single_file(model: str, patch: Patch, out: Path, half: bool, loading: LoadOptions) -> None:
    from safegen.cli.apply import hardened
    from safegen.patches.original_layout import overlay_single_file, save_single_file

    pipeline = hardened(model, patch, loading)
    source = Path(model)
    if source.is_file() and source.suffix == ".safetensors":
        overlay_single_file(source, pipeline, patch.differences, out, patch.metadata, half)
        return
    save_single_file(pipeline, out, patch.metadata, half)
    if getattr(pipeline, "safety_checker", None) is not None:
        typer.echo("warning: the safety checker has no place in this layout, left out", err=True)


def _lora(
    model: str,
    patch: Patch,
    out: Path,
    layout: Layout,
    sizes: Mapping[str, float | None],
    half: bool,
    measure: int | None,
    loading: LoadOptions,
) -> None:
    import torch

    from safegen.cli.apply import hardened
    from safegen.models.anatomy import denoiser_of
    from safegen.patches.lora import save_lora
    from safegen.patches.low_rank import LowRankPatch
    from safegen.patches.patch import remove

    pipeline = hardened(model, patch, loading)  # says whether the patch fits
    remove(pipeline, patch)
    name = "unet" if denoiser_of(pipeline) is getattr(pipeline, "unet", None) else "transformer"
    parts = LowRankPatch.of(patch)
    dtype = torch.float16 if half else torch.float32
    ranks = _chosen_ranks(parts, sizes, dtype.itemsize)
    _show(parts, ranks, dtype, _measure(pipeline, measure))
    save_lora(out, parts.factors(ranks, dtype), layout, name, patch.metadata)


def _chosen_ranks(parts: LowRankPatch, sizes: Mapping[str, float | None], width: int) -> Ranks:
    """The ranks that were asked for; numbers take ``width`` bytes."""
    from safegen.patches.lora import OVERHEAD

    if sizes["rank"] is not None:
        return parts.at_rank(int(sizes["rank"]))
    if sizes["max-megabytes"] is not None:
        room = int(sizes["max-megabytes"] * MEGABYTE) - OVERHEAD * len(parts.spectra)
        return parts.for_size(room // width)
    return parts.for_energy(ENERGY if sizes["energy"] is None else sizes["energy"])


def _measure(pipeline: Any, prompts: int | None) -> Callable[[Patch], Effect] | None:
    """What measures a patch on the lab, if that is wanted."""
    if prompts is None:
        return None
    from safegen.lab.probe import Probe, probe_prompts

    return Probe(pipeline, probe_prompts(prompts)).effect


def _show(
    parts: LowRankPatch, ranks: Ranks, dtype: Any, measure: Callable[[Patch], Effect] | None
) -> None:
    """The table of ranks, and what a LoRA cannot hold."""
    from safegen.cli._console import Console
    from safegen.report.ranks import rank_table

    Console().print(rank_table(parts, ranks, dtype, measure))
    if parts.left_out:
        typer.echo(
            f"warning: {len(parts.left_out)} weights are no matrices and NOT in the LoRA, "
            f"{parts.left_out[0]} among them: {parts.left_out_energy:.1%} of what the patch "
            "changes, in squares; --format diffusers and single-file keep them",
            err=True,
        )
