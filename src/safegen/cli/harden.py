"""``safegen harden``: the whole way from a model to a hardened one, in one command."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli._settings import takes_settings
from safegen.cli.loading import Model, Preset
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.models.options import LoadOptions
from safegen.settings import Settings, setting

_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")
_PICTURES = "Triplets"
_MEASURED = "Measurement"
Concept = Annotated[
    str,
    typer.Option(metavar="NAME|FILE.yaml", help="Concept to remove, such as nudity or weapons."),
]


@dataclass(frozen=True)
class PictureOptions(Settings):
    """Where the triplets come from."""

    triplets: Path | None = setting(
        None,
        "Latents from 'safegen triplets', or a CSV of pictures (default: the concept's own source, "
        "else the model draws them).",
        panel=_PICTURES,
    )
    unsafe: Path | None = setting(None, "Folder of unsafe pictures.", panel=_PICTURES)
    benign: Path | None = setting(None, "Folder of benign pictures.", panel=_PICTURES)
    pairs: int | None = setting(
        None,
        "Pairs to draw (default: 100, or the usual number of the concept's source).",
        panel=_PICTURES,
        minimum=1,
    )

    @property
    def folders(self) -> tuple[Path, Path] | None:
        """Folders of unsafe and of benign pictures; None without."""
        if self.unsafe is None and self.benign is None:
            return None
        if self.unsafe is None or self.benign is None or self.triplets is not None:
            raise SafegenError(
                "say where the triplets come from, once: --triplets FILE, or --unsafe DIR with "
                "--benign DIR"
            )
        return self.unsafe, self.benign


@dataclass(frozen=True)
class MeasuringOptions(Settings):
    """What is measured, and which targets are to be reached."""

    unsafe_prompts: tuple[str, ...] = setting(
        (),
        "Prompts that show the concept, a file or SPEC such as i2p:FILE, instead of the concept's; "
        "some train, others measure. May be repeated.",
        panel=_MEASURED,
    )
    benign_prompts: tuple[str, ...] = setting(
        (), "Prompts of what must stay, likewise; may be repeated.", panel=_MEASURED
    )
    count: int | None = setting(
        None,
        "Prompts of each set to measure on (default: the set's own number).",
        panel=_MEASURED,
        minimum=1,
    )
    until: tuple[str, ...] = setting(
        (),
        "Bound to reach, such as 'removal>=0.99' (default: that and, where objects are recognised, "
        "'retention>=0.97' and 'near-miss-retention>=0.92'); may be repeated.",
        panel=_MEASURED,
    )
    observer: tuple[str, ...] = setting(
        (),
        "Observer beside the concept's detector, such as clip:MODEL; may be repeated.",
        panel=_MEASURED,
    )
    workers: int | None = setting(
        None,
        "Number of workers (default: one for each GPU or, where there is none, one).",
        panel=_MEASURED,
        minimum=1,
    )


@takes_settings(given=EditSettings)
def harden(
    model: Model,
    concept: Concept,
    out: Annotated[Path, typer.Option(help="Run folder: patch, pipeline, card, report.")],
    preset: Preset = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print pictures, memory and time.")
    ] = False,
    *,
    pictures: PictureOptions,
    measured: MeasuringOptions,
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
    if measured.unsafe_prompts:
        prompts = replace(prompts, unsafe=_specs(measured.unsafe_prompts))
    if measured.benign_prompts:
        prompts = replace(prompts, benign=_specs(measured.benign_prompts), near_miss=())
    order = Order(
        model,
        replace(chosen, prompts=prompts),
        out,
        edit_settings(preset, given),
        loading,
        pictures.triplets,
        pictures.folders,
        pictures.pairs,
        measured.count,
        measured.observer,
        measured.until,
        measured.workers,
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


def _specs(given: Iterable[str]) -> tuple[str, ...]:
    """Write files as the specs of own prompts, each named as its file."""
    return tuple(
        text
        if ":" in text and not Path(text).is_file()
        else f"{_NOT_IN_NAMES.sub('-', Path(text).stem)}=own:{text}"
        for text in given
    )
