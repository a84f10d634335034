"""Attacks that invert pictures, and DDIM's path between a picture and noise.

On flow matching's straight path, DDIM's step is Euler's, either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task
from safegen.attacks._trajectory import levels
from safegen.attacks.target import Target
from safegen.models.conditioning import TextCondition
from safegen.models.families import family_of
from safegen.models.from_pictures import last_steps
from safegen.models.prediction import prediction_of


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
        """See ``Attack.against``; nothing is learned.

        Raises:
            SafegenError: the pipeline is of no known family.
        """
        family_of(target.pipeline)
        yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        raise NotImplementedError


class DdimPath:
    """DDIM's steps (arXiv 2010.02502) on the defended model.

    Symbols: z at level i has the noise at the start of step i, from 0; z after the last step is the
    clean latent. a and s are the signal and noise of each level.

    Args:
        target: the defended model.
        steps: number of steps.
    """

    def __init__(self, target: Target, steps: int) -> None:
        self.target = target
        self.scheduler = last_steps(target.pipeline, "ddim", steps, 1.0)
        self.times = self.scheduler.timesteps  # (S,)
        a, s = levels(self.scheduler)
        self.a: list[float] = a.tolist()  # (S + 1,)
        self.s: list[float] = s.tolist()
        self.straight = prediction_of(target.pipeline.scheduler) == "flow"

    def heading(self, z: torch.Tensor, level: int, condition: TextCondition) -> torch.Tensor:
        """Predict where the path leads from z: the noise (z - a x0_hat) / s, for any
        parameterisation; on a straight path the velocity (z - x0_hat) / s."""
        times = self.times[level].repeat(len(z))
        clean = self.target.clean(z, times, condition)
        share = 1.0 if self.straight else self.a[level]
        return (z - share * clean) / self.s[level]

    def move(self, z: torch.Tensor, heading: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Take DDIM's step (equation 12) between two levels, either way, or Euler's."""
        if self.straight:
            return z + (self.s[end] - self.s[start]) * heading
        clean = (z - self.s[start] * heading) / self.a[start]
        return self.a[end] * clean + self.s[end] * heading
