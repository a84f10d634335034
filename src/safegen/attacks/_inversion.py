"""Attacks that invert pictures, and DDIM's path between a picture and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task
from safegen.attacks.target import Target
from safegen.models.from_pictures import last_steps


@dataclass(frozen=True)
class InversionAttack(Attack):
    """Attack by the noise that inverts each goal's unsafe picture.

    Attributes:
        settings: settings of the inversion.
        name: name in tables.
    """

    settings: Any
    name: str

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity(self.name, "image", "white box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        target.check_plain()
        yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        raise NotImplementedError


class DdimPath:
    """DDIM's steps (arXiv 2010.02502) on the defended model.

    Symbols: z at level i has the noise at the start of step i, from 0; z after the last step is the
    clean latent. a and s are the signal and noise of each level.

    Args:
        target: the defended model, which ``Target.check_plain`` accepts.
        steps: number of steps.
    """

    def __init__(self, target: Target, steps: int) -> None:
        self.target = target
        self.scheduler = last_steps(target.pipeline, "ddim", steps, 1.0)
        self.times = self.scheduler.timesteps  # (S,)
        clean = self.scheduler.final_alpha_cumprod.reshape(1)
        alpha_bar = torch.cat([self.scheduler.alphas_cumprod[self.times.cpu()], clean])
        self.a, self.s = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()  # (S + 1,)

    def noise(self, z: torch.Tensor, level: int, condition: torch.Tensor) -> torch.Tensor:
        """Predict the noise in z: (z - a x0_hat) / s, for any parameterisation."""
        times = self.times[level].repeat(len(z))
        clean = self.target.clean(z, times, condition)
        noise: torch.Tensor = (z - self.a[level] * clean) / self.s[level]
        return noise

    def move(self, z: torch.Tensor, noise: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Take DDIM's step (equation 12) between two levels, either way."""
        clean = (z - self.s[start] * noise) / self.a[start]
        moved: torch.Tensor = self.a[end] * clean + self.s[end] * noise
        return moved
