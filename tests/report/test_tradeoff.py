"""The trade-off between removal and what is kept: in the page, as a picture, and not to be had."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safegen.errors import SafegenError
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery
from safegen.report.tradeoff import write_tradeoff_png
from safegen.results.records import Table


def without(table: Table, *metrics: str) -> Table:
    figures = {key: each for key, each in table.figures.items() if key[2] not in metrics}
    return replace(table, figures=figures, metrics=[m for m in table.metrics if m not in metrics])


def test_the_trade_off_falls_back_on_the_clip_score(
    table: Table, read_page: Callable[[str], Any]
) -> None:
    page = render_report(without(table, "retention", "near-miss-retention"), Gallery())
    assert "with a CLIP score of" in read_page(page).standfirst
    assert page.count("<figure") == 2


@pytest.mark.parametrize(
    "missing", [("removal",), ("retention", "near-miss-retention", "clip-score")]
)
def test_without_a_trade_off_the_figures_still_stand(
    table: Table, missing: tuple[str, ...], read_page: Callable[[str], Any], tmp_path: Path
) -> None:
    lesser = without(table, *missing)
    page = read_page(render_report(lesser, Gallery()))
    assert "There is no trade-off to show" in page.standfirst
    assert len(page.tables) == len(table.prompt_sets)
    with pytest.raises(SafegenError, match="--benign"):
        write_tradeoff_png(tmp_path / "plot.png", lesser)


def test_the_plot_names_every_defense_in_each_panel(page: str, table: Table) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
        assert {each.name for each in table.defenses} <= set(texts)


def test_the_plot_is_written_as_png(table: Table, tmp_path: Path) -> None:
    write_tradeoff_png(tmp_path / "docs" / "plot.png", table)
    image = np.asarray(Image.open(tmp_path / "docs" / "plot.png").convert("RGB"))
    height, width = image.shape[:2]
    assert width > 2 * height
    halves = np.split(image, [width // 2], axis=1)
    teal = (0x0E, 0x7C, 0x74)
    assert all((half == teal).all(axis=2).sum() > 100 for half in halves)
