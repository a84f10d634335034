"""DDIM's steps with noise of an attacker's own and a steered prediction (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from safegen.attacks import Task
from safegen.attacks._from_pictures import draw_by, own_noise
from safegen.attacks.target import Target
from safegen.models.from_pictures import noise_like
from safegen.models.prediction import LEAST_SIGNAL, clean_latent, prediction_of, signal_and_noise
from safegen.models.sampling import Sample

Guide = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Gradient of a log-probability in noised latents z_t (B, ...) at timesteps (B,)."""


def levels(scheduler: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise (S + 1,) before each of a DDIM sampler's steps, and after the last."""
    if prediction_of(scheduler) == "flow":
        s = scheduler.sigmas
        return 1 - s, s
    a, s = signal_and_noise(scheduler, scheduler.timesteps)
    alpha_bar = torch.as_tensor(scheduler.final_alpha_cumprod).to(a).reshape(1)
    return torch.cat([a, alpha_bar.sqrt()]), torch.cat([s, (1 - alpha_bar).sqrt()])


def deviation(
    a: torch.Tensor, s: torch.Tensor, a_next: torch.Tensor, s_next: torch.Tensor
) -> torch.Tensor:
    """sigma_t of a step with all of its noise (equation 16 at eta 1).

    It is s' / s sqrt(s^2 - (a s' / a')^2), with a' and s' after the step. On a variance-preserving
    schedule this is the paper's sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar').
    """
    left = s.square() - (a * s_next / a_next).square()
    return s_next / s * left.clamp(min=0).sqrt()


def steer(
    scheduler: Any,
    generators: Sequence[torch.Generator],
    eta: float = 0.0,
    scale: float = 1.0,
    guide: Guide | None = None,
) -> None:
    """Give a scheduler DDIM's steps with noise and guidance, for one call of the pipeline.

    z' = a' x + sqrt(s'^2 - (eta sigma)^2) e + scale eta sigma n (equation 12), where eta above 1
    and scale are those of arXiv 2505.17013. With a guide g, e is first moved to e - s g(z)
    (arXiv 2105.05233, algorithm 2).

    Args:
        scheduler: scheduler of ``last_steps`` for ``ddim``.
        generators: source of each picture's noise.
        eta: share of the noise that a step takes anew.
        scale: factor of the new noise.
        guide: gradient to follow.
    """
    (a, s), kind, done = levels(scheduler), prediction_of(scheduler), 0

    def step(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *_: Any, **__: Any) -> Any:
        nonlocal done
        here, after = slice(done, done + 1), slice(done + 1, done + 2)
        done += 1
        a_t, s_t, a_n, s_n = (
            each.to(sample.device) for each in (a[here], s[here], a[after], s[after])
        )
        z = sample.float()
        clean = clean_latent(output.float(), z, a_t, s_t, kind)
        noise = (z - a_t * clean) / s_t
        if guide is not None and float(a_t) > LEAST_SIGNAL:  # pure noise shows no concept
            times = torch.as_tensor(timestep, device=z.device).reshape(-1)[:1].expand(len(z))
            noise = noise - s_t * guide(z, times)
            clean = (z - s_t * noise) / a_t.clamp(min=LEAST_SIGNAL)
        sigma = eta * deviation(a_t, s_t, a_n, s_n)
        kept = (s_n.square() - sigma.square()).clamp(min=0).sqrt()
        moved = a_n * clean + kept * noise + scale * sigma * noise_like(z, generators)
        return (moved.to(sample.dtype),)

    scheduler.step = step


def draw_steered(
    target: Target,
    tasks: Sequence[Task],
    generators: Sequence[torch.Generator],
    eta: float = 0.0,
    scale: float = 1.0,
    guide: Guide | None = None,
) -> list[Sample]:
    """Draw tasks with the defended model by the steps of ``steer``; noise is the generators'."""

    def change(scheduler: Any, rows: list[int]) -> None:
        steer(scheduler, [generators[i] for i in rows], eta, scale, guide)

    return draw_by(target, tasks, own_noise(target, generators), "ddim", change)
