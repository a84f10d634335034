"""``safegen leaderboard``: one page and one CSV of many runs, and of figures of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN...", help="Run folders of safegen evaluate, attack and others."
        ),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Figures of others: .csv or .json. May be repeated."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="PAGE.html", help="Page to write; a .csv goes beside it.")
    ] = Path("leaderboard.html"),
) -> None:
    """Show the figures of many runs on one page: defenses, prompt sets and attacks.

    The page is self-contained, and pictures of unsafe prompts on it are blurred. The CSV has every
    figure in the form that --rows reads.
    """
    from safegen.cli._options import check_out
    from safegen.errors import SafegenError
    from safegen.files import write_atomically
    from safegen.report.entries import Entry, check_distinct, csv_text, entries_of, read_entries
    from safegen.report.leaderboard import render_leaderboard
    from safegen.report.leaderboard_pictures import Thumbnail, thumbnails
    from safegen.report.tables import read_summary

    if not runs and not rows:
        raise SafegenError("nothing to show; give run folders, or --rows FILE.csv")
    if out.suffix != ".html":
        raise SafegenError(f"--out {out}: is a page, so its name ends with .html")
    check_out(out, *(rows or ()))
    check_out(out.with_suffix(".csv"), *(rows or ()))
    entries: list[Entry] = []
    pictures: dict[tuple[str, str], list[Thumbnail]] = {}
    for folder in runs or ():
        origin = folder.resolve().name
        if any(entry.origin == origin for entry in entries):
            raise SafegenError(f"{folder}: is the second run named {origin}; rename one")
        table = read_summary(folder / "summary.json")
        entries += entries_of(table, origin)
        shown = thumbnails(folder, table)
        pictures.update({(origin, defense): each for defense, each in shown.items()})
    for file in rows or ():
        entries += read_entries(file)
    check_distinct(entries)
    write_atomically(out.with_suffix(".csv"), csv_text(entries))
    write_atomically(out, render_leaderboard(entries, pictures))
    typer.echo(f"{len(entries)} figures: {out} and {out.with_suffix('.csv')}")
