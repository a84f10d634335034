"""Weathering: pictures as a worse model draws them, paler, blurred, recoloured, noisy.

A detector trained on clean drawings only misses an object that has paled a little. Then an edit
that leaves a weapon's ghost counts as a removal, and one that tints a heart as a loss.
"""

from __future__ import annotations

import torch

SPARED = 0.5
"""Share of the pictures left unchanged."""
BLURRED = 0.4
"""Share of the changed pictures that are blurred."""
PALEST = 0.5
"""Largest share of a place's colour that is replaced."""
GAIN, OFFSET, NOISE = 0.2, 0.06, 0.04
"""Largest change of contrast, of brightness and of single pixels; pixels are in [0, 1]."""


def weather(pixels: torch.Tensor, generator: torch.Generator, darkest: float = 0.0) -> torch.Tensor:
    """Change some of the pictures (N, 3, H, W) in [0, 1], but keep their content visible.

    Args:
        pixels: pictures (N, 3, H, W).
        generator: generator of all draws.
        darkest: largest share of a picture's light that is removed, in [0, 1].
    """
    count = len(pixels)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    blurred = blur(pixels)
    soft = torch.where(uniform(1, 1, 1) < BLURRED, blur(blurred), pixels)
    # Objects pale towards what is around them, or towards any colour.
    around = blur(blur(blurred), radius=5)
    ground = torch.where(uniform(1, 1, 1) < 0.5, around, uniform(3, 1, 1).expand_as(pixels))
    pale = PALEST * uniform(1, 1, 1) * _spot(pixels.shape, uniform(4, 1, 1))
    gain, offset = 1 + GAIN * (2 * uniform(3, 1, 1) - 1), OFFSET * (2 * uniform(3, 1, 1) - 1)
    noise = NOISE * uniform(1, 1, 1) * torch.randn(pixels.shape, generator=generator)
    light = 1 - darkest * uniform(1, 1, 1).square()
    worn = ((torch.lerp(soft, ground, pale) - 0.5) * gain + 0.5 + offset) * light + noise
    return torch.where(uniform(1, 1, 1) < SPARED, pixels, worn.clamp(0, 1))


def blur(pixels: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """Replace each pixel by the mean of its surroundings."""
    height, width, reach = pixels.shape[2], pixels.shape[3], range(2 * radius + 1)
    padded = torch.nn.functional.pad(pixels, [radius] * 4, mode="replicate")
    # Sums of shifted pictures take a fraction of the time of pooling with stride 1.
    rows = sum((padded[:, :, step : step + height] for step in reach), torch.tensor(0.0))
    summed = sum((rows[..., step : step + width] for step in reach), torch.tensor(0.0))
    return summed / len(reach) ** 2


def _spot(shape: torch.Size, chances: torch.Tensor) -> torch.Tensor:
    """Weights (N, 1, H, W) in [0, 1] of a round, soft-edged spot; the widest covers the picture.

    Args:
        shape: shape of the pictures.
        chances: draws in [0, 1], (N, 4, 1, 1), of place and size, vertical and horizontal.
    """
    y = torch.linspace(0, 1, shape[2]).view(1, -1, 1)
    x = torch.linspace(0, 1, shape[3]).view(1, 1, -1)
    top, left, height, width = chances.unbind(dim=1)
    distance = ((y - top) / (0.2 + height)) ** 2 + ((x - left) / (0.2 + width)) ** 2
    return torch.sigmoid(8 * (1 - distance))[:, None]
