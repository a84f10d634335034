"""``safegen evaluate --preset paper``: its folder, its cost, its run, and what is published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.cli import _runs as runs
from safegen.settings import Settings, setting

if TYPE_CHECKING:
    from safegen.cli._console import Console
    from safegen.cli._options import TableOptions
    from safegen.evaluation.paper import Found

_PANEL = "Preset paper"
COMPARISON = "published.md"


@dataclass(frozen=True)
class PaperOptions(Settings):
    """Options of the preset paper."""

    data: Path | None = setting(
        None, "Folder with the paper's data sets, pictures and patches.", panel=_PANEL
    )
    skip: tuple[str, ...] = setting(
        (),
        "Part to leave out, such as nsfw-56k or inception; may be repeated.",
        panel=_PANEL,
    )
    dry_run: bool = setting(
        False, "Only tell what the folder has and lacks, the pictures, time and cost.", panel=_PANEL
    )


def check_options(options: PaperOptions, preset: str | None) -> None:
    """Refuse options of the preset without it, and the preset without its folder."""
    from safegen.errors import SafegenError

    if preset == "paper":
        if options.data is None:
            raise SafegenError("--preset paper reads its data from a folder; give it with --data")
    elif options != PaperOptions():
        raise SafegenError("--data, --skip and --dry-run belong to --preset paper")


def evaluate(
    model: str | None,
    out: Path,
    options: PaperOptions,
    table: TableOptions,
    given: dict[str, Any],
) -> None:
    """Tell what the folder has and what the run takes, run it, and compare with what is published.

    Args:
        model: the model, as the user named it; the paper's if None.
        out: run folder.
        options: options of the preset, with a folder.
        table: table options of the command.
        given: values of the given settings, by option.
    """
    from safegen.cli._console import Console
    from safegen.evaluation.cost import cost_of
    from safegen.evaluation.paper import (
        MODEL,
        check_parts,
        find_parts,
        paper_settings,
    )
    from safegen.files import write_atomically
    from safegen.report.published import comparison, markdown

    folder, console, model = Path(str(options.data)), Console(), model or MODEL
    found, esd = find_parts(folder, options.skip), out / "patches" / "esd.safetensors"
    for each in found:
        console.print(str(each))
    check_parts(found, folder)
    preset = paper_settings(model, found, esd, table.count, options.skip)
    settings = runs.settings_from(model, preset, table, given)
    for line in cost_of(settings).lines():
        console.print(line)
    if options.dry_run:
        return
    if _needs_esd(found) and not esd.is_file():
        _make_esd(model, esd, given, console)
    with runs.filled(settings, table, out, None) as results:
        rows = comparison(results)
        write_atomically(out / COMPARISON, markdown(rows))
        console.print("published figures, of other pictures and judges, beside those measured here")
        for row in rows:
            console.print(str(row))


def _needs_esd(found: tuple[Found, ...]) -> bool:
    return any(
        each.part.name == "esd" and not each.skipped and each.place is None for each in found
    )


def _make_esd(model: str, path: Path, given: dict[str, Any], console: Console) -> None:
    """Train the patch of ESD with its published settings."""
    from functools import partial

    from safegen.cli._progress import PhaseProgress
    from safegen.concepts import load_concept
    from safegen.defenses.erasing import create_eraser
    from safegen.evaluation.paper import ESD
    from safegen.models.loading import load_pipeline
    from safegen.models.options import LoadOptions
    from safegen.profiles import profile_of
    from safegen.settings import options

    loading = {each.name: given[each.name] for each in options(LoadOptions) if each.name in given}
    pipeline = load_pipeline(model, **loading)
    with PhaseProgress(console) as progress:
        show = partial(progress.show, f"training {ESD}")
        eraser = create_eraser(ESD, profile_of(model))
        eraser.erase(pipeline, load_concept("nudity"), show).save(path)
