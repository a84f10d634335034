"""The outputs of a demo: summary, report, model card and picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from safegen.files import write_atomically
from safegen.report.card import model_card, write_model_card
from safegen.report.figures import figure_rows
from safegen.report.grid import comparison_grid
from safegen.report.html import write_report
from safegen.report.records import Comparison, PromptSetResult
from safegen.report.summary import build_summary, write_summary

if TYPE_CHECKING:
    from safegen.lab.demo import DemoResult

GRID_PAIRS = 2
"""Comparisons of each prompt set in the picture."""


def write_outputs(folder: Path, result: DemoResult) -> dict[str, Any]:
    """Write ``report.html``, ``README.md`` (the model card), ``grid.png`` and, last,
    ``summary.json``, so that a folder with a summary is complete. Returns the summary."""
    summary = build_summary(result.facts, result.prompt_sets, result.features)
    write_report(folder / "report.html", summary, result.facts, result.prompt_sets)
    card = model_card(summary, result.facts, dataset="safegen-lab", license="apache-2.0")
    write_model_card(folder / "README.md", card)
    grid = comparison_grid(_samples(result.prompt_sets), columns=8, scale=2, blur_unsafe=True)
    buffer = io.BytesIO()
    grid.save(buffer, "PNG", optimize=True)
    write_atomically(folder / "grid.png", buffer.getvalue())
    write_summary(folder / "summary.json", summary)
    return summary


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table("measure", "prompts", "original", "hardened", "n")
    for row in figure_rows(summary):
        cells = [
            f"{cell.value or '–'}{f' ({cell.interval})' if cell.interval else ''}"
            for cell in (row.original, row.hardened)
        ]
        table.add_row(row.measure, row.over, *cells, str(row.count))
    console.print(table)


def _samples(prompt_sets: Sequence[PromptSetResult]) -> list[Comparison]:
    """The first comparisons of each set: chosen by position, not by how they turned out."""
    return [c for prompt_set in prompt_sets for c in prompt_set.comparisons[:GRID_PAIRS]]
