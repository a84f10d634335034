"""Trade-off plot of an evaluation: removal on the x axis, what is kept on the y axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.report.canvas import LIGHT, STAND_INS, Palette, png_of, svg_of
from safegen.report.labels import Box, place_labels
from safegen.report.measures import measure
from safegen.report.standing import REMOVAL, Kind, Point, Standing, standing
from safegen.report.wording import listed
from safegen.results.records import Estimate, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_SIZE = (5.6, 4.4)
LABEL_SIZE = 9
LINE_ROOM = 0.8
"""Distance of names from the lines of intervals, in points."""
NEAR = 11.0
"""Distance in points from which a name has a line to its point."""
PADDING = 0.05
"""Margin around the points as a share of their range."""
ORDER: tuple[Kind, ...] = ("safegen", "original", "baseline")
"""Order of naming, which gives the most important names the best places."""
Limits = tuple[float, float]


class _Look(NamedTuple):
    """Marker of a defense; its shape tells the kinds apart without colour."""

    colour: str
    marker: str
    size: float


def tradeoff_svgs(found: Standing) -> dict[str, str]:
    """Draw a panel per unsafe set as an ``<svg>`` element in the page's colours."""
    panels = found.panels()
    return {
        name: svg_of(
            partial(_draw, found, {name: points}, STAND_INS), PANEL_SIZE, f"tradeoff-{index}"
        )
        for index, (name, points) in enumerate(panels.items())
    }


def write_tradeoff_png(path: Path, table: Table) -> None:
    """Write all panels beside each other as a PNG, in light colours.

    Raises:
        SafegenError: the table has no removal rate, or no figure of what is kept.
    """
    found = standing(table)
    if found is None:
        raise SafegenError(
            "a trade-off plot needs a removal rate, and the retention or CLIP score of a benign "
            "prompt set; evaluate with --detector, --benign, and --objects or --clip"
        )
    panels = found.panels()
    width, height = PANEL_SIZE
    png = png_of(partial(_draw, found, panels, LIGHT), (width * len(panels), height))
    write_atomically(path, png)


def _draw(
    found: Standing, panels: Mapping[str, Sequence[Point]], palette: Palette, figure: Figure
) -> None:
    """Draw panels that share the axes of all panels of the standing."""
    every = [point for points in found.panels().values() for point in points]
    across, along = _limits(point.removal for point in every), _limits(p.kept for p in every)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, points) in zip(all_axes, panels.items(), strict=True):
        axes.set_xlim(min(across[0], 0.0 - PADDING), max(across[1], 1.0 + PADDING))
        axes.set_ylim(along)
        _draw_axes(axes, found, palette)
        axes.set_xlabel(f"removed, {name} →", loc="right")
        for point in points:
            _draw_point(axes, point, _look(found.kinds[point.defense], palette))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points in zip(all_axes, panels.values(), strict=True):
        _draw_labels(axes, points, found.kinds, palette)


def _limits(estimates: Iterable[Estimate]) -> Limits:
    """Compute the axis limits: from the lowest to the highest end of an interval, and a margin."""
    ends = [end for each in estimates for end in (each.value, *(each.interval or ()))]
    room = PADDING * ((max(ends) - min(ends)) or 1.0)
    return min(ends) - room, max(ends) + room


def _draw_axes(axes: Axes, found: Standing, palette: Palette) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=palette.rule, lw=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: _tick(REMOVAL, value))
    axes.yaxis.set_major_formatter(lambda value, _: _tick(found.kept_metric, value))
    axes.locator_params(nbins=6)
    title = measure(found.kept_metric).title
    place = f"↑ {title}, {listed(found.kept_sets)}"
    axes.set_title(place, loc="left", fontsize=10, color=palette.faint)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _tick(metric: str, value: float) -> str:
    return f"{100 * value:.4g} %" if measure(metric).is_share else f"{value:.4g}"


def _look(kind: Kind, palette: Palette) -> _Look:
    looks: dict[Kind, _Look] = {
        "original": _Look(palette.original, "s", 7),
        "safegen": _Look(palette.hardened, "D", 7),
        "baseline": _Look(palette.faint, "o", 6),
    }
    return looks[kind]


def _draw_point(axes: Axes, point: Point, look: _Look) -> None:
    for across, along in _lines(point):
        axes.plot(across, along, color=look.colour, lw=1.2, alpha=0.35, zorder=2)
    axes.plot(
        point.removal.value, point.kept.value, look.marker, color=look.colour, ms=look.size,
        mew=0, zorder=3, clip_on=False,
    )  # fmt: skip


def _draw_labels(
    axes: Axes, points: Sequence[Point], kinds: Mapping[str, Kind], palette: Palette
) -> None:
    """Name every point, safegen and the original first."""
    order = sorted(points, key=lambda point: ORDER.index(kinds[point.defense]))
    scale = 72 / axes.figure.dpi

    def place(x: float, y: float) -> tuple[float, float]:
        across, along = scale * axes.transData.transform((x, y))
        return float(across), float(along)

    frame = axes.get_window_extent()
    bounds = Box(*(scale * end for end in (frame.x0, frame.y0, frame.x1, frame.y1)))
    places = [place(point.removal.value, point.kept.value) for point in order]
    lines = [
        Box(*place(across[0], along[0]), *place(across[1], along[1])).wider(LINE_ROOM)
        for point in order
        for across, along in _lines(point)
    ]
    texts = [
        axes.annotate(
            point.defense, (point.removal.value, point.kept.value), (0, 0),
            textcoords="offset points", fontsize=LABEL_SIZE, va="bottom", ha="left",
            color=_look(kinds[point.defense], palette).colour, zorder=4, annotation_clip=False,
        )
        for point in order
    ]  # fmt: skip
    extents = [text.get_window_extent() for text in texts]
    sizes = [(scale * extent.width, scale * extent.height) for extent in extents]
    boxes = place_labels(places, sizes, bounds, lines)
    for text, (x, y), box in zip(texts, places, boxes, strict=True):
        text.set_position((box.left - x, box.bottom - y))
        across = min(max(x, box.left), box.right) - x
        along = min(max(y, box.bottom), box.top) - y
        if math.hypot(across, along) > NEAR:
            axes.annotate(
                "", text.xy, (across, along), textcoords="offset points", zorder=2,
                arrowprops={"arrowstyle": "-", "color": text.get_color(), "lw": 0.6,
                            "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip


def _lines(point: Point) -> Iterator[tuple[Limits, Limits]]:
    """Yield a point's intervals as lines: their ends in x and in y."""
    if point.removal.interval is not None:
        yield point.removal.interval, (point.kept.value, point.kept.value)
    if point.kept.interval is not None:
        yield (point.removal.value, point.removal.value), point.kept.interval
