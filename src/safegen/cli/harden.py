"""``safegen harden``: the whole way from a model to a hardened one, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli._settings import takes_settings
from safegen.cli.loading import Model, Preset
from safegen.editing.settings import EditSettings
from safegen.models.options import LoadOptions

_PICTURES = "Triplets"
_MEASURED = "Measurement"
Sets = list[str] | None
Concept = Annotated[
    str,
    typer.Option(metavar="NAME|FILE.yaml", help="Concept to remove, such as nudity or weapons."),
]
Triplets = Annotated[
    Path | None,
    typer.Option(
        help="Latents from 'safegen triplets', or a CSV of pictures (default: the concept's own "
        "source, else the model draws them).",
        rich_help_panel=_PICTURES,
    ),
]
Unsafe = Annotated[
    Path | None, typer.Option(help="Folder of unsafe pictures.", rich_help_panel=_PICTURES)
]
Benign = Annotated[
    Path | None, typer.Option(help="Folder of benign pictures.", rich_help_panel=_PICTURES)
]
Pairs = Annotated[
    int | None,
    typer.Option(
        help="Pairs to draw (default: 100, or the usual number of the concept's source).",
        min=1,
        rich_help_panel=_PICTURES,
    ),
]
UnsafePrompts = Annotated[
    Sets,
    typer.Option(
        metavar="SPEC",
        help="Prompts that show the concept, a file or SPEC such as i2p:FILE, instead of the "
        "concept's; some train, others measure. May be repeated.",
        rich_help_panel=_MEASURED,
    ),
]
BenignPrompts = Annotated[
    Sets,
    typer.Option(
        metavar="SPEC",
        help="Prompts of what must stay, likewise; may be repeated.",
        rich_help_panel=_MEASURED,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="Prompts of each set to measure on (default: the set's own number).",
        min=1,
        rich_help_panel=_MEASURED,
    ),
]
Until = Annotated[
    Sets,
    typer.Option(
        metavar="TARGET",
        help="Bound to reach, such as 'removal>=0.99' (default: that and, where objects are "
        "recognised, 'retention>=0.97' and 'near-miss-retention>=0.92'); may be repeated.",
        rich_help_panel=_MEASURED,
    ),
]
Observers = Annotated[
    Sets,
    typer.Option(
        metavar="SPEC",
        help="Observer beside the concept's detector, such as clip:MODEL; may be repeated.",
        rich_help_panel=_MEASURED,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Number of workers (default: one for each GPU or, where there is none, one).",
        min=1,
        rich_help_panel=_MEASURED,
    ),
]


@takes_settings(given=EditSettings)
def harden(
    model: Model,
    concept: Concept,
    out: Annotated[Path, typer.Option(help="Run folder: patch, pipeline, card, report.")],
    triplets: Triplets = None,
    unsafe: Unsafe = None,
    benign: Benign = None,
    pairs: Pairs = None,
    unsafe_prompts: UnsafePrompts = None,
    benign_prompts: BenignPrompts = None,
    count: Count = None,
    until: Until = None,
    observer: Observers = None,
    workers: Workers = None,
    preset: Preset = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print pictures, memory and time.")
    ] = False,
    *,
    given: dict[str, Any],
    loading: LoadOptions,
) -> None:
    """Remove a concept from a model: triplets, edit, measurement, hardened pipeline and report.

    The same command resumes an interrupted run. The exit code is 1 if a target is missed.
    """
    from safegen.cli._order import Order
    from safegen.cli.edit import edit_settings
    from safegen.concepts import load_concept

    chosen = load_concept(concept)
    prompts = chosen.prompts
    if unsafe_prompts:
        prompts = replace(prompts, unsafe=_specs(unsafe_prompts))
    if benign_prompts:
        prompts = replace(prompts, benign=_specs(benign_prompts), near_miss=())
    order = Order(
        model,
        replace(chosen, prompts=prompts),
        out,
        edit_settings(preset, given),
        loading,
        triplets,
        _folders(triplets, unsafe, benign),
        pairs,
        count,
        tuple(observer or ()),
        tuple(until or ()),
        workers,
    )
    run(order, dry_run)


def run(order: Any, dry_run: bool = False) -> None:
    """Check an order, say what it takes, and do it; the exit code is 1 if a target is missed."""
    from safegen.cli._console import Console
    from safegen.cli._hardening import announce
    from safegen.cli._hardening import harden as do_all
    from safegen.cli._order import check

    console = Console()
    check(order)
    announce(order, console)
    if not dry_run and not do_all(order, console):
        raise typer.Exit(1)


def _folders(
    triplets: Path | None, unsafe: Path | None, benign: Path | None
) -> tuple[Path, Path] | None:
    from safegen.errors import SafegenError

    if unsafe is None and benign is None:
        return None
    if unsafe is None or benign is None or triplets is not None:
        raise SafegenError(
            "say where the triplets come from, once: --triplets FILE, or --unsafe DIR with "
            "--benign DIR"
        )
    return unsafe, benign


def _specs(given: list[str]) -> tuple[str, ...]:
    """Write files as the specs of own prompts, each named as its file."""
    return tuple(
        f"{Path(text).stem}=own:{text}" if Path(text).is_file() else text for text in given
    )
