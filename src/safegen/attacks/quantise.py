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
from safegen.models.anatomy import denoiser_of
from safegen.registry import takes
from safegen.settings import Settings, setting


@dataclass(frozen=True)
class QuantiseSettings(Settings, of="quantise"):
    """Settings of a quantisation."""

    bits: int = setting(8, "Bits of a weight.", minimum=2, maximum=8)


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
@takes(QuantiseSettings)
def quantise(bits: int = 8) -> Quantise:
    """Weights rounded to a few bits, such as quantise:4."""
    return Quantise(QuantiseSettings(bits))
