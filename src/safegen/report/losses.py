"""Losses of an edit as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from safegen.report.canvas import STAND_INS, svg_of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from safegen.editing.run_folder import EditRecord


def losses_svg(records: Sequence[EditRecord]) -> str:
    """Plot both losses against the step on a logarithmic scale: raw values faint, moving means
    strong."""
    from matplotlib.ticker import LogLocator

    steps = np.array([record.step for record in records])
    curves = {
        "redirect": (np.array([record.redirect for record in records]), STAND_INS.hardened),
        "preserve": (np.array([record.preserve for record in records]), STAND_INS.original),
    }
    window = max(1, len(steps) // 20)
    smooth = {label: moving_mean(values, window) for label, (values, _) in curves.items()}
    upper = max(smooth, key=lambda label: smooth[label][-1])

    def draw(axes: Axes) -> None:
        for label, (values, colour) in curves.items():
            axes.plot(steps, values, color=colour, lw=0.7, alpha=0.3)
            axes.plot(steps, smooth[label], color=colour, lw=2)
            # Above and below their ends, so that close curves do not write over each other.
            axes.annotate(
                label, (steps[-1], smooth[label][-1]), (6, 0), textcoords="offset points",
                color=colour, va="bottom" if label == upper else "top", annotation_clip=False,
            )  # fmt: skip
        if all((values > 0).all() for values, _ in curves.values()):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("step")
        axes.grid(axis="y", color=STAND_INS.rule, lw=0.8)

    return svg_of_axes(draw, (5.6, 2.8), "losses")


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Compute the mean of each value (N,) and those before it, over at most ``window``; (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means
