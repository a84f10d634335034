"""What a denoiser's output says about the clean latent, in each parameterisation.

Symbols: z_t = a z_0 + s n, with clean latent z_0, noise n, and scalars a, s of shape (B,).
Variance preserving: a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar); flow matching: a = 1 - t, s = t.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from safegen.errors import SafegenError

Prediction = Literal["epsilon", "v_prediction", "flow"]


def prediction_of(scheduler: Any) -> Prediction:
    """What the pipeline's denoiser predicts, read from its scheduler."""
    kind = scheduler.config.get("prediction_type", None)
    if kind in ("epsilon", "v_prediction"):
        return kind  # type: ignore[no-any-return]
    raise SafegenError(f"prediction type {kind!r} is not supported; known: epsilon, v_prediction")


def signal_and_noise(scheduler: Any, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, s) at integer timesteps (B,) of a variance-preserving scheduler."""
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(
    z_0: torch.Tensor, noise: torch.Tensor, a: torch.Tensor, s: torch.Tensor
) -> torch.Tensor:
    """z_t = a z_0 + s n; latents (B, C, H, W), scalars (B,)."""
    return _like(a, z_0) * z_0 + _like(s, z_0) * noise


def clean_latent(
    output: torch.Tensor, z_t: torch.Tensor, a: torch.Tensor, s: torch.Tensor, kind: Prediction
) -> torch.Tensor:
    """The clean latent x0_hat that an output stands for.

    epsilon: (z_t - s e) / a; v: a z_t - s v (arXiv 2202.00512); flow: z_t - s v.
    """
    a, s = _like(a, z_t), _like(s, z_t)
    if kind == "epsilon":
        return (z_t - s * output) / a
    if kind == "v_prediction":
        return a * z_t - s * output
    return z_t - s * output


def output_for(
    target: torch.Tensor, z_t: torch.Tensor, a: torch.Tensor, s: torch.Tensor, kind: Prediction
) -> torch.Tensor:
    """The output that stands for a clean latent: the inverse of ``clean_latent``.

    epsilon* = (z_t - a z_c)/s; v* = a epsilon* - s z_c; flow v* = (z_t - z_c)/s.
    """
    a, s = _like(a, z_t), _like(s, z_t)
    if kind == "flow":
        return (z_t - target) / s
    epsilon = (z_t - a * target) / s
    return epsilon if kind == "epsilon" else a * epsilon - s * target


def _like(scalar: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    return scalar.view(-1, *([1] * (latent.dim() - 1)))
