"""CutMix: pictures with a rectangle of another, combinations that no triplet shows.

CutMix (arXiv 1905.04899) works on clean latents, without mixed labels: the target is known at
every position.
"""

from __future__ import annotations

import torch

SIDES = (0.25, 0.75)
"""Shortest and longest side of a rectangle, as shares of the picture's side."""


def rectangles(
    count: int, height: int, width: int, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw masks (count, 1, height, width); a ``share`` of them are true in one rectangle."""
    chosen = torch.rand(count, 1, generator=generator) < share
    sides = SIDES[0] + (SIDES[1] - SIDES[0]) * torch.rand(2, count, 1, generator=generator)
    starts = torch.rand(2, count, 1, generator=generator) * (1 - sides)
    rows, columns = (
        (start <= places) & (places < start + side)
        for start, side, places in zip(starts, sides, map(_places, (height, width)), strict=True)
    )
    masks: torch.Tensor = (rows & chosen)[:, :, None] & columns[:, None, :]
    return masks[:, None]


def _places(length: int) -> torch.Tensor:
    """Centres of ``length`` equal parts of [0, 1]."""
    return (torch.arange(length) + 0.5) / length
