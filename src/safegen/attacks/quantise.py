"""Quantisation: all matrices and convolutions rounded to a few bits.

Hosts quantise what they serve. An edit that lies below the rounding is undone by it, without anyone
meaning harm. Weights are rounded to the nearest of evenly spaced levels, symmetric about zero, one
scale for each output channel (absmax), and drawn with in the model's own precision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from safegen.attacks import AttackIdentity, register
from safegen.attacks._weights import WeightChange
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.profiles import NO_SETTINGS, Settings


@dataclass(frozen=True)
class QuantiseSettings:
    """Settings of a quantisation.

    Attributes:
        bits: bits of a weight, 2 to 8.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise SafegenError(f"quantise: bits lie between 2 and 8, and {self.bits} does not")


@dataclass(frozen=True)
class Quantise(WeightChange):
    """Draw the goals with rounded weights."""

    settings: QuantiseSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = f"quantise-{self.settings.bits}"
        return AttackIdentity(name, "weights", "white box", asdict(self.settings))

    def change(self, target: Target) -> None:
        """See ``WeightChange.change``."""
        for weight in denoiser_of(target.pipeline).parameters():
            if weight.ndim >= 2:
                weight.copy_(rounded(weight, self.settings.bits))


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round a weight (out, ...) to 2^bits - 1 levels, with one scale for each output channel."""
    levels = 2 ** (bits - 1) - 1
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / levels
    nearest: torch.Tensor = (rows / scale).round() * scale
    return nearest.view_as(weight).to(weight.dtype)


@register("quantise")
def quantise(bits: str = "8", *, usual: Settings = NO_SETTINGS) -> Quantise:
    """Weights rounded to a few bits, such as quantise:4."""
    if not bits.isdecimal():
        raise SafegenError(f"quantise: {bits!r} is no number of bits; write quantise:8")
    return Quantise(QuantiseSettings(**{**usual, "bits": int(bits)}))
