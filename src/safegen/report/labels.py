"""Placement of labels for points that lie close together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

DIRECTIONS = 24
STEPS = 14
"""Number of directions and of distances tried around a point."""
DISTANCE_COST = 2.5
"""Area (square points) that a label may hide before it moves one point farther away."""
MARKER = 5.0
"""Half the side of a marker's square, in points."""


class Box(NamedTuple):
    """Rectangle; ``left`` <= ``right`` and ``bottom`` <= ``top``."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Compute the area that two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def wider(self, room: float) -> Box:
        """Return the rectangle widened by ``room`` on every side."""
        return Box(self.left - room, self.bottom - room, self.right + room, self.top + room)

    @property
    def area(self) -> float:
        """Area: width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    lines: Sequence[Box] = (),
) -> list[Box]:
    """Place each label near its point, inside the bounds, as clear as possible of points, other
    labels and lines.

    Greedy in the given order, so the most important labels come first. All lengths are in points
    (1/72 inch).

    Args:
        points: positions of the points.
        sizes: widths and heights of their labels.
        bounds: area for labels.
        lines: other areas that labels avoid.
    """
    taken = [Box(x, y, x, y).wider(MARKER) for x, y in points] + list(lines)
    placed: list[Box] = []
    for point, size in zip(points, sizes, strict=True):

        def cost(candidate: tuple[float, Box], over: Sequence[Box] = (*taken, *placed)) -> float:
            distance, box = candidate
            hidden = box.area - box.overlap(bounds) + sum(map(box.overlap, over))
            return hidden + DISTANCE_COST * distance

        placed.append(min(_candidates(point, size), key=cost)[1])
    return placed


def _candidates(
    point: tuple[float, float], size: tuple[float, float]
) -> Iterator[tuple[float, Box]]:
    """Yield distances from a point with the boxes there, to the right of it first."""
    (x, y), (width, height) = point, size
    for step in range(1, STEPS + 1):
        distance = 2 + MARKER * step
        for turn in range(DIRECTIONS):
            # 0, 1, -1, 2, -2, ...: away from the right, upwards before downwards.
            angle = math.tau * ((turn + 1) // 2) * (1 if turn % 2 else -1) / DIRECTIONS
            across, along = math.cos(angle), math.sin(angle)
            left = x + distance * across + width * (across - 1) / 2
            bottom = y + distance * along + height * (along - 1) / 2
            yield distance, Box(left, bottom, left + width, bottom + height)
