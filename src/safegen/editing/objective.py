"""The edit's losses, as pure functions of a denoiser's output.

Symbols: z_u, z_c, z_b are the unsafe, censored and benign clean latents, n the noise,
z_t = a z + s n, and x0_hat the clean-latent prediction.
"""

from __future__ import annotations

import torch

from safegen.errors import SafegenError
from safegen.models.prediction import Prediction, clean_latent


def bounded_weight(a: torch.Tensor, s: torch.Tensor, gamma: float) -> torch.Tensor:
    """w(t) = min(a / s, gamma): bounded as in min-SNR (arXiv 2303.09556), but with the root of the
    signal-to-noise ratio, since guidance decides a picture's content at high noise."""
    return (a / s).clamp(max=gamma)


def clean_latent_loss(
    output: torch.Tensor,
    z_t: torch.Tensor,
    target: torch.Tensor,
    a: torch.Tensor,
    s: torch.Tensor,
    kind: Prediction,
    gamma: float,
) -> torch.Tensor:
    """w(t) |x0_hat - target|^2 per item (B,): the exact redirect with target z_c.

    As a weight on epsilon's error this is min(s/a, gamma s^2/a^2), which is 0 without noise.
    """
    error = clean_latent(output, z_t, a, s, kind) - target
    return bounded_weight(a, s, gamma) * error.pow(2).flatten(1).mean(dim=1)


def guided(latents: torch.Tensor, guidance: float) -> torch.Tensor:
    """x_0 + g (x_1 - x_0) of latents (B, 2, C, H, W) under the empty prompt and a text:
    classifier-free guidance (arXiv 2207.12598)."""
    return latents[:, 0] + guidance * (latents[:, 1] - latents[:, 0])


def guided_latent_loss(
    predicted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, guidance: float
) -> torch.Tensor:
    """w |guided(x0_hat) - guided(target)|^2 / (g^2 + (g - 1)^2) per picture (B,).

    Sampling uses the guided prediction, in which an error that differs between the two texts
    counts g^2 + (g - 1)^2 times and a common error once.
    """
    error = guided(predicted - target, guidance)
    scale = guidance**2 + (guidance - 1) ** 2
    return weight * error.pow(2).flatten(1).mean(dim=1) / scale


def paper_target(
    z_u: torch.Tensor,
    z_c: torch.Tensor,
    noise: torch.Tensor,
    a: torch.Tensor,
    s: torch.Tensor,
    kind: Prediction,
) -> torch.Tensor:
    """Regression target of the released SafeGen code (arXiv 2404.06666, L_m).

    epsilon: n + (z_u - z_c), without the exact redirect's factor a/s; v: the velocity of
    z_u - z_c, a n - s (z_u - z_c).
    """
    difference = z_u - z_c
    if kind == "epsilon":
        return noise + difference
    if kind == "v_prediction":
        shape = (-1, *([1] * (noise.dim() - 1)))
        return a.view(shape) * noise - s.view(shape) * difference
    raise SafegenError("the paper's objective is not defined for flow matching; use 'exact'")


def output_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """|output - target|^2 per item (B,): the paper's unweighted loss."""
    return (output - target).pow(2).flatten(1).mean(dim=1)
