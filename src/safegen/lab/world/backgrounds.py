"""Places of the lab's scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from safegen.lab.world.drawing import Brush, Colour, new_canvas


@dataclass(frozen=True)
class Background:
    """Place: its name, its phrase in captions, its base colour, and the function that paints it.

    ``paint(brush, shift)`` draws in [-1, 1] coordinates; ``shift`` in [-1, 1] moves details.
    """

    name: str
    text: str
    base: Colour
    paint: Callable[[Brush, float], None]


BACKGROUNDS: dict[str, Background] = {}


def _register(text: str, base: Colour) -> Callable[[Callable[[Brush, float], None]], None]:
    def register(paint: Callable[[Brush, float], None]) -> None:
        name = paint.__name__
        BACKGROUNDS[name] = Background(name, text, base, paint)

    return register


def paint_background(name: str, shift: float, brightness: float) -> Image.Image:
    """Paint the place on a supersampled canvas."""
    background = BACKGROUNDS[name]
    canvas = new_canvas(background.base)
    background.paint(Brush(canvas, brightness=brightness), shift)
    return canvas


@_register("in a meadow", (168, 216, 240))
def meadow(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (168, 216, 240), None)
    b.ellipse(-0.5, 1.0 + 0.05 * shift, 1.3, 0.95, (142, 204, 112), None)
    b.ellipse(0.7, 1.15 - 0.05 * shift, 1.1, 0.95, (120, 188, 96), None)


@_register("on the beach", (150, 214, 240))
def beach(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (150, 214, 240), None)
    b.box(-1, -0.2 + 0.08 * shift, 1, 1, (52, 146, 200), None)
    b.polygon(
        [(-1, 0.35), (0.2, 0.2 + 0.06 * shift), (1, 0.42), (1, 1), (-1, 1)], (244, 220, 160), None
    )


@_register("under the night sky", (34, 40, 84))
def night(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (34, 40, 84), None)
    for x, y in ((-0.8, -0.5), (-0.35, -0.85), (0.1, -0.6), (-0.9, 0.1), (0.9, 0.0), (0.4, -0.9)):
        b.ellipse(x + 0.05 * shift, y, 0.035, 0.035, (250, 244, 200), None)
    b.ellipse(0.72, -0.66, 0.2, 0.2, (250, 240, 190), None)
    b.box(-1, 0.62, 1, 1, (58, 62, 104), None)


@_register("in a kitchen", (250, 238, 214))
def kitchen(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (250, 238, 214), None)
    for x in range(-2, 3):
        b.line([(x * 0.45 + 0.1 * shift, -1), (x * 0.45 + 0.1 * shift, 0.4)], (228, 206, 172), 0.04)
    for y in (-0.55, -0.08):
        b.line([(-1, y), (1, y)], (228, 206, 172), 0.04)
    b.box(-1, 0.4, 1, 1, (196, 136, 88), None)
    b.box(-1, 0.4, 1, 0.5, (222, 168, 116), None)


@_register("in the snow", (206, 222, 238))
def snow(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (190, 208, 228), None)
    b.polygon([(-1, 0.1), (-0.45 + 0.1 * shift, -0.6), (0.05, 0.1)], (160, 180, 208), None)
    b.polygon([(-0.1, 0.1), (0.5 + 0.1 * shift, -0.45), (1, 0.1)], (148, 170, 200), None)
    b.box(-1, 0.08, 1, 1, (246, 250, 254), None)


@_register("in the desert", (250, 206, 150))
def desert(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (252, 212, 160), None)
    b.ellipse(-0.6 + 0.1 * shift, -0.6, 0.24, 0.24, (255, 244, 196), None)
    b.ellipse(0.6, 1.1, 1.2, 0.95, (226, 160, 92), None)
    b.ellipse(-0.7, 1.3, 1.2, 0.98, (210, 140, 76), None)


@_register("in the city", (214, 216, 232))
def city(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (214, 216, 236), None)
    for left, top in ((-1.0, -0.4), (-0.6, -0.75), (-0.15, -0.3), (0.2, -0.65), (0.65, -0.45)):
        b.box(left, top + 0.06 * shift, left + 0.38, 0.7, (158, 164, 196), None)
        b.box(left + 0.1, top + 0.15, left + 0.28, top + 0.27, (232, 226, 190), None)
    b.box(-1, 0.6, 1, 1, (122, 122, 136), None)


@_register("in a bedroom", (228, 206, 236))
def bedroom(b: Brush, shift: float) -> None:
    b.box(-1, -1, 1, 1, (222, 200, 232), None)
    for x in range(-3, 4):
        left = x * 0.36 + 0.08 * shift
        b.box(left, -1, left + 0.16, 0.55, (234, 218, 242), None)
    b.box(-1, 0.52, 1, 1, (178, 128, 148), None)
    b.box(-1, 0.5, 1, 0.6, (250, 244, 250), None)
