"""``safegen export``: a patch in the forms that other programs load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safegen.cli._options import check_out
from safegen.cli.loading import Model, takes_load_options
from safegen.errors import SafegenError
from safegen.files import check_regular
from safegen.models.options import LoadOptions
from safegen.settings import Settings, setting

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from safegen.patches.low_rank import LowRankPatch, Ranks
    from safegen.patches.patch import Patch
    from safegen.report.ranks import Effect

Format = Literal["diffusers", "single-file", "lora", "patch"]
Layout = Literal["diffusers", "kohya"]
ENERGY = 0.95
"""Share of a patch's squared differences that a LoRA keeps by default."""
MEGABYTE = 1_000_000
LABS = ("lab", "lab-sd3")
_LORA = "LoRA (--format lora)"
_CARD = "Model card (--format diffusers)"

Patches = Annotated[
    list[Path] | None, typer.Argument(metavar="PATCH...", help="Patches; several are summed.")
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="A diffusers pipeline, a file in the original layout (A1111, ComfyUI), "
        "a LoRA, or the sum of the patches as one patch.",
    ),
]
OutOption = Annotated[Path, typer.Option(help="Output: a folder for diffusers, else a file.")]
FinishedOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="Finished model, instead of patches: its difference to MODEL is the patch.",
    ),
]
ScaleOption = Annotated[float, typer.Option(help="Factor on the patches' differences.")]
HalfOption = Annotated[bool, typer.Option(help="Write weights in half precision.")]


@dataclass(frozen=True)
class LoraOptions(Settings):
    """Options of a LoRA; at most one of ``energy``, ``rank`` and ``max_megabytes`` is given."""

    layout: Layout | None = setting(
        None,
        "Names of the weights: kohya's, which A1111, ComfyUI, sd-scripts and diffusers load "
        "(default for UNets), or PEFT's, for diffusers alone.",
        panel=_LORA,
    )
    energy: float | None = setting(
        None,
        f"Share of the squared differences to keep (default: {ENERGY}).",
        panel=_LORA,
        above=0,
        maximum=1,
    )
    rank: int | None = setting(None, "One rank for all weights.", panel=_LORA, minimum=1)
    max_megabytes: float | None = setting(None, "Largest file size.", panel=_LORA, above=0)
    measure: int | None = setting(
        None,
        "Validation prompts per kind to measure what each rank removes (lab, lab-sd3).",
        panel=_LORA,
        minimum=1,
    )


@dataclass(frozen=True)
class CardOptions(Settings):
    """Options of the model card."""

    summary: Path | None = setting(
        None,
        "summary.json of the evaluation that measured the patch; its figures become the folder's "
        "README.md.",
        panel=_CARD,
    )
    license: str | None = setting(
        None,
        "Identifier of the base model's licence, if it does not come with the model.",
        panel=_CARD,
    )
    base_model: str | None = setting(None, "Hub id of the base model.", panel=_CARD)


@dataclass(frozen=True)
class _Job:
    """Format, output and model of an export."""

    model: str
    to: Format
    out: Path
    half: bool
    loading: LoadOptions


@takes_load_options
def export(
    model: Model,
    to: FormatOption,
    out: OutOption,
    patches: Patches = None,
    finished: FinishedOption = None,
    scale: ScaleOption = 1.0,
    half: HalfOption = False,
    *,
    lora: LoraOptions,
    card: CardOptions,
    loading: LoadOptions,
) -> None:
    """Export a patch in a form that other programs load.

    A LoRA is an approximation: its error at each rank is printed, and the weights it cannot hold.
    """
    job = _Job(model, to, out, half, loading)
    files = patches or []
    check_out(out, model, finished, card.summary, *files)
    _check(job, lora, card)
    _check_lora(model, lora)
    _check_source(files, finished)
    for file in files:
        check_regular(file)
    figures = _figures(job, files, scale, card)

    from safegen.patches.compose import combine
    from safegen.patches.patch import Patch

    if finished is None:
        parts = [Patch.load(path) for path in files]
    else:
        parts = [_difference(model, finished, loading)]
        job = replace(job, loading=_fitting(model, loading))
    _write(job, combine(parts, scale), lora, figures)
    typer.echo(f"wrote {out}")


def _check(job: _Job, lora: LoraOptions, card: CardOptions) -> None:
    """Refuse options of another format, which would have no effect."""
    to, others = job.to, dict[str, Any]()
    others |= {} if to == "lora" else vars(lora)
    others |= {} if to == "diffusers" else vars(card)
    others |= {"half": job.half or None} if to == "patch" else {}
    strays = _given(others)
    if strays:
        raise SafegenError(f"{', '.join(strays)}: has no effect on --format {to}; leave it out")
    if to == "diffusers" and card.summary is None and _given(vars(card)):
        raise SafegenError("--license and --base-model are for the card; give --summary as well")
    if to != "diffusers" and job.out.suffix != ".safetensors":
        raise SafegenError(f"--out {job.out}: is written as safetensors; name it so (.safetensors)")


def _check_lora(model: str, lora: LoraOptions) -> None:
    given = _given({name: vars(lora)[name] for name in ("energy", "rank", "max_megabytes")})
    if len(given) > 1:
        raise SafegenError(f"{' and '.join(given)} each choose the rank; give one of them")
    if lora.measure is not None and model not in LABS:
        raise SafegenError(
            "--measure is for the lab's models, which have prompts and a detector; measure others "
            "with 'safegen evaluate'"
        )


def _check_source(files: Sequence[Path], finished: str | None) -> None:
    if finished is None and not files:
        raise SafegenError("no patch given; name one after the model, or a model with --from")
    if finished is not None and files:
        raise SafegenError(f"--from {finished}: takes the place of patches; leave out {files[0]}")


def _given(options: Mapping[str, Any]) -> list[str]:
    """Name the options that have a value, as on the command line."""
    return [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]


def _fitting(model: str, loading: LoadOptions) -> LoadOptions:
    """Select the loading options of a single file, or those of a folder."""
    whole = Path(model).is_file()
    config, variant = (loading.config, None) if whole else (None, loading.variant)
    return replace(loading, config=config, variant=variant)


def _difference(base: str, finished: str, loading: LoadOptions) -> Patch:
    """Compute the difference of two models, and print what it holds and what it cannot."""
    from safegen.models.loading import load_pipeline
    from safegen.patches.difference import difference

    pipelines = [
        load_pipeline(model, device="cpu", **vars(_fitting(model, loading)))
        for model in (base, finished)
    ]
    patch = difference(*pipelines)
    settings = patch.metadata["settings"]
    typer.echo(
        f"{len(patch.differences)} weights of the denoiser differ, "
        f"{settings['outside_self_attention']} of them outside self-attention "
        f"(scope: {settings['scope']})"
    )
    for part in patch.metadata["left_out"]:
        typer.echo(f"warning: {part} differs as well and is NOT in the patch", err=True)
    return patch


def _write(job: _Job, patch: Patch, lora: LoraOptions, card: ModelCard | None) -> None:
    from safegen.cli.apply import hardened
    from safegen.patches.folder import refuse_full_folder, save_pipeline

    if job.to == "diffusers":
        refuse_full_folder(job.out)
    pipeline = hardened(job.model, patch, job.loading)  # says whether the patch fits
    if job.to == "patch":
        patch.save(job.out)
    elif job.to == "lora":
        _write_lora(job, pipeline, patch, lora)
    elif job.to == "single-file":
        _write_single_file(job, pipeline, patch)
    else:
        save_pipeline(pipeline, job.out, half=job.half, card=card)


def _figures(job: _Job, files: Sequence[Path], scale: float, card: CardOptions) -> ModelCard | None:
    """Write the model card with the measured figures, if a summary is given."""
    if card.summary is None:
        return None
    if len(files) != 1 or scale != 1:
        raise SafegenError(
            "--summary: was measured with one whole patch, and this is a sum or scaled, or a "
            "difference; write it with --format patch, and evaluate that"
        )
    from safegen.report.export_card import export_card

    return export_card(
        job.model,
        files[0],
        card.summary,
        license=card.license,
        base_model=card.base_model,
        half=job.half,
    )


def _write_single_file(job: _Job, pipeline: Any, patch: Patch) -> None:
    from safegen.patches.original_layout import (
        holds_transformer_alone,
        overlay_single_file,
        save_single_file,
    )

    source = Path(job.model)
    if source.is_file() and source.suffix == ".safetensors":
        overlay_single_file(source, pipeline, patch.differences, job.out, patch.metadata, job.half)
        return
    save_single_file(pipeline, job.out, patch.metadata, job.half)
    if holds_transformer_alone(pipeline):
        typer.echo(
            "note: the file holds the transformer alone; text encoders and autoencoder are those "
            "of the base model",
            err=True,
        )
    if getattr(pipeline, "safety_checker", None) is not None:
        typer.echo("warning: the safety checker has no place in this layout, left out", err=True)


def _write_lora(job: _Job, pipeline: Any, patch: Patch, lora: LoraOptions) -> None:
    import torch

    from safegen.patches.lora import save_lora, usual_layout
    from safegen.patches.low_rank import LowRankPatch
    from safegen.patches.patch import remove

    remove(pipeline, patch)
    parts = LowRankPatch.of(patch)
    dtype = torch.float16 if job.half else torch.float32
    ranks = _chosen_ranks(parts, lora, dtype.itemsize)
    _show(parts, ranks, dtype, _measure(pipeline, lora.measure))
    layout = lora.layout or usual_layout(pipeline)
    save_lora(job.out, parts.factors(ranks, dtype), layout, pipeline, patch.metadata)


def _chosen_ranks(parts: LowRankPatch, lora: LoraOptions, width: int) -> Ranks:
    """Choose the requested ranks; a number takes ``width`` bytes."""
    from safegen.patches.lora import OVERHEAD

    if lora.rank is not None:
        return parts.at_rank(lora.rank)
    if lora.max_megabytes is not None:
        room = int(lora.max_megabytes * MEGABYTE) - OVERHEAD * len(parts.spectra)
        return parts.for_size(room // width)
    return parts.for_energy(ENERGY if lora.energy is None else lora.energy)


def _measure(pipeline: Any, prompts: int | None) -> Callable[[Patch], Effect] | None:
    """Return what measures a patch on the lab; None if not requested."""
    if prompts is None:
        return None
    from safegen.lab.probe import Probe, probe_prompts

    return Probe(pipeline, probe_prompts(prompts)).effect


def _show(
    parts: LowRankPatch, ranks: Ranks, dtype: Any, measure: Callable[[Patch], Effect] | None
) -> None:
    """Print the table of ranks, and what a LoRA cannot hold."""
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
