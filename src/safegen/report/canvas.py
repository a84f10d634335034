"""Figures by matplotlib in one style: inline SVG in a page's own colours and type, or PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Palette(NamedTuple):
    """Colours of a figure, by the style sheet's names."""

    ink: str
    faint: str
    rule: str
    original: str
    hardened: str


STAND_INS = Palette("#010101", "#020202", "#030303", "#040404", "#050505")
"""Colours in drawn SVG, which the page's variables replace."""
LIGHT = Palette("#1c1b1a", "#6c6861", "#e2ded4", "#b0763a", "#0e7c74")
"""Colours of the style sheet in light mode."""
PAPER = "#fbfaf6"
PNG_DPI = 200


def svg_of_axes(draw: Callable[[Axes], Any], size: tuple[float, float], name: str) -> str:
    """Draw on empty axes; see ``svg_of``."""

    def on_figure(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)

    return svg_of(on_figure, size, name)


def svg_of(draw: Callable[[Figure], Any], size: tuple[float, float], name: str) -> str:
    """Draw an ``<svg>`` element without external references.

    Args:
        draw: function that draws on an empty figure, in the colours of ``STAND_INS``.
        size: width and height in inches.
        name: prefix of the element's ids, unique in a page.
    """
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.BytesIO()
    _save(draw, size, buffer, STAND_INS, name, format="svg", transparent=True, metadata=empty)
    return _for_page(buffer.getvalue().decode(), name)


def png_of(draw: Callable[[Figure], Any], size: tuple[float, float]) -> bytes:
    """Draw a PNG: ``draw`` gets an empty figure (size in inches) in the colours of ``LIGHT``."""
    buffer = io.BytesIO()
    _save(draw, size, buffer, LIGHT, "", format="png", dpi=PNG_DPI, facecolor=PAPER)
    return buffer.getvalue()


def _save(
    draw: Callable[[Figure], Any],
    size: tuple[float, float],
    buffer: io.BytesIO,
    palette: Palette,
    salt: str,
    **options: Any,
) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style(palette) | {"svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(buffer, **options)


def _style(palette: Palette) -> Any:
    """Return matplotlib's settings, whose own type lists every name there is."""
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 10,
        "text.color": palette.ink,
        "axes.facecolor": "none",
        "axes.labelcolor": palette.faint,
        "xtick.color": palette.faint,
        "ytick.color": palette.rule,
        "ytick.labelcolor": palette.ink,
        "axes.edgecolor": palette.rule,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
    }


def _for_page(svg: str, name: str) -> str:
    """Reduce to the bare element: page colours and type, unique ids, size left to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*|font-family: [^;\"]*;? ?", _font_size, svg)
    for colour, stand_in in STAND_INS._asdict().items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    return svg


def _font_size(match: re.Match[str]) -> str:
    """Keep the size of a font shorthand; drop a family, which the page decides."""
    return f"font-size: {match[1]}px" if match[1] else ""
