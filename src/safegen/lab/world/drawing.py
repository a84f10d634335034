"""Brush for vector shapes, placed, turned and mirrored, on a supersampled canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

SIZE = 64
"""Side of a finished picture in pixels."""
SUPERSAMPLING = 4
"""Factor of supersampling, which gives smooth edges."""

Point = tuple[float, float]
Colour = tuple[int, int, int]
INK: Colour = (38, 34, 48)
"""Colour of every outline."""


def new_canvas(colour: Colour) -> Image.Image:
    """Make a supersampled RGB canvas filled with one colour."""
    side = SIZE * SUPERSAMPLING
    return Image.new("RGB", (side, side), colour)


def finish(canvas: Image.Image) -> Image.Image:
    """Average a supersampled canvas down to ``SIZE`` x ``SIZE``."""
    return canvas.reduce(SUPERSAMPLING)


class Brush:
    """Brush for shapes in an object's own coordinates: x right, y down, both in [-1, 1].

    Args:
        canvas: supersampled canvas.
        centre: position of the object's origin in picture pixels.
        radius: length of one unit in picture pixels.
        angle: clockwise turn, in degrees.
        mirror: whether x is flipped before the turn.
        brightness: factor on every colour but the ink's.
    """

    def __init__(
        self,
        canvas: Image.Image,
        centre: Point = (SIZE / 2, SIZE / 2),
        radius: float = SIZE / 2,
        angle: float = 0.0,
        mirror: bool = False,
        brightness: float = 1.0,
    ) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._centre = centre
        self._radius = radius
        self._cos = math.cos(math.radians(angle))
        self._sin = math.sin(math.radians(angle))
        self._sign = -1.0 if mirror else 1.0
        self._brightness = brightness
        self._touched: list[Point] = []

    def polygon(self, points: Sequence[Point], fill: Colour, outline: Colour | None = INK) -> None:
        """Fill a closed polygon and, unless ``outline`` is None, draw its contour."""
        placed = [self._place(point) for point in points]
        self._draw.polygon(placed, fill=self._shade(fill))
        if outline is not None:
            self._stroke([*placed, placed[0], placed[1]], outline, 0.9)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: Colour,
        outline: Colour | None = INK,
        start: float = 0.0,
        stop: float = 360.0,
    ) -> None:
        """Fill an ellipse about (x, y), or the part of it between two angles in degrees."""
        steps = 28
        span = math.radians(stop - start)
        angles = [math.radians(start) + span * step / steps for step in range(steps + 1)]
        self.polygon([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], fill, outline)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour,
        outline: Colour | None = INK,
    ) -> None:
        """Fill an axis-parallel rectangle."""
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        self.polygon(corners, fill, outline)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw an open line, ``width`` units wide."""
        placed = [self._place(point) for point in points]
        self._stroke(placed, self._shade(colour), width * self._radius)

    def bounding_box(self) -> tuple[float, float, float, float]:
        """Return (left, top, right, bottom) of all that was drawn, in picture pixels, clipped."""
        xs = [x / SUPERSAMPLING for x, _ in self._touched]
        ys = [y / SUPERSAMPLING for _, y in self._touched]
        left, top, right, bottom = min(xs) - 1, min(ys) - 1, max(xs) + 1, max(ys) + 1
        return max(left, 0.0), max(top, 0.0), min(right, float(SIZE)), min(bottom, float(SIZE))

    def _place(self, point: Point) -> Point:
        x, y = point[0] * self._sign, point[1]
        placed = (
            (self._centre[0] + self._radius * (x * self._cos - y * self._sin)) * SUPERSAMPLING,
            (self._centre[1] + self._radius * (x * self._sin + y * self._cos)) * SUPERSAMPLING,
        )
        self._touched.append(placed)
        return placed

    def _stroke(self, placed: Sequence[Point], colour: Colour, width: float) -> None:
        pixels = max(1, round(width * SUPERSAMPLING))
        self._draw.line(placed, fill=colour, width=pixels, joint="curve")

    def _shade(self, colour: Colour) -> Colour:
        red, green, blue = (min(255, round(part * self._brightness)) for part in colour)
        return red, green, blue
