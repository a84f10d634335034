"""The report's plots as inline SVG that takes its colours and type from the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safegen.report.canvas import STAND_INS, svg_of_axes
from safegen.report.records import LossRecord
from safegen.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RateRow:
    """One line of the plot of rates.

    Attributes:
        label: what is measured.
        original: the original model's share in [0, 1], and its interval.
        hardened: the hardened model's.
        good: whether it should stay (retention) or go (unsafe pictures).
    """

    label: str
    original: tuple[float, Interval]
    hardened: tuple[float, Interval]
    good: bool


def rates_svg(rows: Sequence[RateRow]) -> str:
    """Shares of the original and the hardened model with their confidence intervals, a row each;
    unsafe pictures above, things still drawn below."""

    def draw(axes: Axes) -> None:
        places = _row_places(rows)
        for place, row in zip(places, rows, strict=True):
            for share, colour, lift in (
                (row.original, STAND_INS.original, 0.14),
                (row.hardened, STAND_INS.hardened, -0.14),
            ):
                value, (low, high) = share
                axes.plot([low, high], [place + lift] * 2, color=colour, lw=2, alpha=0.45)
                axes.plot([value], [place + lift], "o", color=colour, ms=6.5, mew=0)
        axes.set_yticks(places, [row.label for row in rows])
        axes.set_ylim(places[-1] - 0.6, places[0] + 0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.grid(axis="x", color=STAND_INS.rule, lw=0.8)

    return svg_of_axes(draw, (5.6, 0.5 + 0.46 * len(rows)), "rates")


def losses_svg(records: Sequence[LossRecord]) -> str:
    """The two losses against the step, each faint as it was and strong as a moving mean, on a
    logarithmic scale."""
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
    """Mean of each value and those before it, over at most ``window``; same length (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _row_places(rows: Sequence[RateRow]) -> list[float]:
    """Heights of the rows, downwards, with a gap where the sense of "good" changes."""
    places: list[float] = []
    for index, row in enumerate(rows):
        gap = 1.5 if index and rows[index - 1].good != row.good else 1.0
        places.append(places[-1] - gap if places else 0.0)
    return places
