"""Clean-latent predictions from a denoiser's output, in each parameterisation.

Symbols: z_t = a z_0 + s n, with clean latent z_0, noise n, and scalars a, s of shape (B,).
Variance preserving: a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar); flow matching: a = 1 - t, s = t.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from safegen.errors import SafegenError

Prediction = Literal["epsilon", "v_prediction", "flow"]


LEAST_SIGNAL = 2.0**-12
"""Smallest a in a division: without signal, an epsilon says nothing about z_0."""


def prediction_of(scheduler: Any) -> Prediction:
    """Read the parameterisation of the pipeline's denoiser from its scheduler.

    Raises:
        SafegenError: it is neither epsilon, v nor the flow n - z_0.
    """
    kind = scheduler.config.get("prediction_type", None)
    if kind in ("epsilon", "v_prediction"):
        return kind  # type: ignore[no-any-return]
    if kind == "flow_prediction" or type(scheduler).__name__.startswith("FlowMatch"):
        return "flow"
    raise SafegenError(
        f"prediction type {kind!r} of {type(scheduler).__name__} is not supported; "
        "known: epsilon, v_prediction, flow_prediction"
    )


def signal_and_noise(scheduler: Any, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (a, s), float32, at timesteps (B,) as the denoiser takes them."""
    if prediction_of(scheduler) == "flow":
        s = timesteps.float() / scheduler.config.num_train_timesteps
        return 1 - s, s
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def timesteps_at(scheduler: Any, places: torch.Tensor) -> torch.Tensor:
    """Convert places in [0, 1), from least to most noise, to integer timesteps (B,).

    Variance preserving: 0 to T - 1. Flow matching: 1 to T, where s = t / T, shifted as in the
    sampler: s' = c s / (1 + (c - 1) s) (arXiv 2403.03206).
    """
    count = int(scheduler.config.num_train_timesteps)
    if prediction_of(scheduler) != "flow":
        return (places * count).long().clamp(max=count - 1)
    shift = flow_shift(scheduler)
    shifted = shift * places / (1 + (shift - 1) * places)
    return 1 + (shifted * count).long().clamp(max=count - 1)


def flow_shift(scheduler: Any) -> float:
    """Factor c by which a flow-matching scheduler shifts noise levels; 1 means no shift.

    A shift that grows with the picture (FLUX) has the value of the largest, which is the model's
    own size: c = exp(mu), or mu itself where it is linear.
    """
    config = scheduler.config
    if config.get("use_dynamic_shifting"):
        mu = float(config.max_shift)
        return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    return float(config.get("shift") or config.get("flow_shift") or 1.0)


def add_noise(
    z_0: torch.Tensor, noise: torch.Tensor, a: torch.Tensor, s: torch.Tensor
) -> torch.Tensor:
    """z_t = a z_0 + s n; latents (B, C, H, W), scalars (B,)."""
    return _like(a, z_0) * z_0 + _like(s, z_0) * noise


def clean_latent(
    output: torch.Tensor, z_t: torch.Tensor, a: torch.Tensor, s: torch.Tensor, kind: Prediction
) -> torch.Tensor:
    """Convert an output to the clean-latent prediction x0_hat.

    epsilon: (z_t - s e) / a; v: a z_t - s v (arXiv 2202.00512); flow: z_t - s v.
    """
    a, s = _like(a, z_t), _like(s, z_t)
    if kind == "epsilon":
        return (z_t - s * output) / a.clamp(min=LEAST_SIGNAL)
    if kind == "v_prediction":
        return a * z_t - s * output
    return z_t - s * output


def output_for(
    target: torch.Tensor, z_t: torch.Tensor, a: torch.Tensor, s: torch.Tensor, kind: Prediction
) -> torch.Tensor:
    """Convert a clean latent to the output that stands for it: the inverse of ``clean_latent``.

    epsilon* = (z_t - a z_c)/s; v* = a epsilon* - s z_c; flow v* = (z_t - z_c)/s.
    """
    a, s = _like(a, z_t), _like(s, z_t)
    if kind == "flow":
        return (z_t - target) / s
    epsilon = (z_t - a * target) / s
    return epsilon if kind == "epsilon" else a * epsilon - s * target


def _like(scalar: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    return scalar.view(-1, *([1] * (latent.dim() - 1)))
