"""Pictures with a rectangle of another in them: combinations that no triplet shows.

CutMix (arXiv 1905.04899) on clean latents, without its mixed labels: what an edit asks for is
known at every place of a picture.
"""

from __future__ import annotations

import torch

SIDES = (0.25, 0.75)
"""Shortest and longest side of a rectangle, as shares of the picture's."""


def rectangles(
    count: int, height: int, width: int, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Masks (count, 1, height, width), a ``share`` of which are true in one rectangle."""
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
    """The middles of ``length`` equal parts of [0, 1]."""
    return (torch.arange(length) + 0.5) / length
