"""Pictures as a worse model would draw them: paler, blurred, of other colours, noisy.

What recognises an object in clean drawings only takes one that has paled a little for gone. Then
an edit that leaves a weapon's ghost counts as a removal, and one that tints a heart as a loss.
"""

from __future__ import annotations

import torch

SPARED = 0.5
"""Share of the pictures that stay as they are."""
BLURRED = 0.4
"""Share of the others that are blurred."""
PALEST = 0.5
"""At most this share of a place's colour is replaced."""
GAIN, OFFSET, NOISE = 0.2, 0.06, 0.04
"""Greatest change of a channel's contrast and brightness, and of single pixels, of 1."""


def weather(pixels: torch.Tensor, generator: torch.Generator, darkest: float = 0.0) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1], some of them changed; what they show can still be seen.

    Args:
        pixels: the pictures.
        generator: of all draws.
        darkest: at most this share of a picture's light is taken away.
    """
    count = len(pixels)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    blurred = _blur(pixels)
    soft = torch.where(uniform(1, 1, 1) < BLURRED, _blur(blurred), pixels)
    # Objects pale towards what is around them, or towards any colour.
    around = _blur(_blur(blurred), radius=5)
    ground = torch.where(uniform(1, 1, 1) < 0.5, around, uniform(3, 1, 1).expand_as(pixels))
    pale = PALEST * uniform(1, 1, 1) * _spot(pixels.shape, uniform(4, 1, 1))
    gain, offset = 1 + GAIN * (2 * uniform(3, 1, 1) - 1), OFFSET * (2 * uniform(3, 1, 1) - 1)
    noise = NOISE * uniform(1, 1, 1) * torch.randn(pixels.shape, generator=generator)
    light = 1 - darkest * uniform(1, 1, 1).square()
    worn = ((torch.lerp(soft, ground, pale) - 0.5) * gain + 0.5 + offset) * light + noise
    return torch.where(uniform(1, 1, 1) < SPARED, pixels, worn.clamp(0, 1))


def _blur(pixels: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """The mean of each pixel's surroundings."""
    padded = torch.nn.functional.pad(pixels, [radius] * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, 2 * radius + 1, stride=1)


def _spot(shape: torch.Size, chances: torch.Tensor) -> torch.Tensor:
    """Weights (N, 1, H, W) in [0, 1] of a round spot with a soft edge; at its widest it covers all.

    Args:
        shape: of the pictures.
        chances: in [0, 1], (N, 4, 1, 1): of place and size, upright and across.
    """
    y = torch.linspace(0, 1, shape[2]).view(1, -1, 1)
    x = torch.linspace(0, 1, shape[3]).view(1, 1, -1)
    top, left, height, width = chances.unbind(dim=1)
    distance = ((y - top) / (0.2 + height)) ** 2 + ((x - left) / (0.2 + width)) ** 2
    return torch.sigmoid(8 * (1 - distance))[:, None]
