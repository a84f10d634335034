"""DDIM's path between a picture and noise, for attacks that invert pictures."""

from __future__ import annotations

import torch

from safegen.attacks.target import Target
from safegen.models.from_pictures import last_steps


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
