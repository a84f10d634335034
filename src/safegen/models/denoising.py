"""One call for all denoisers: UNets and transformers, with any conditions beside the latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from safegen.models.conditioning import TextCondition


def predict(
    denoiser: nn.Module, z_t: torch.Tensor, timesteps: torch.Tensor, condition: TextCondition
) -> torch.Tensor:
    """Run a denoiser; returns its output (B, C, H, W), float32, on its device.

    Args:
        denoiser: network of a family in ``safegen.models.anatomy``, possibly wrapped by accelerate
            for several processes.
        z_t: noised latents (B, C, H, W).
        timesteps: timesteps of the scheduler (B,).
        condition: text conditions (B).
    """
    weight = next(denoiser.parameters())
    texts = condition.to(weight.device, weight.dtype)
    config: Any = getattr(denoiser, "module", denoiser).config
    extra: dict[str, Any] = {}
    if texts.mask is not None:
        extra["encoder_attention_mask"] = texts.mask
    if texts.added:
        extra["added_cond_kwargs"] = dict(texts.added)
    output = denoiser(
        z_t.to(weight.device, weight.dtype),
        timestep=timesteps.to(weight.device) * config.get("timestep_scale", 1),  # Sana has one
        encoder_hidden_states=texts.hidden,
        return_dict=False,
        **extra,
    )[0]
    # Channels beyond the latent's are a learned variance, which sampling ignores.
    seen: torch.Tensor = output[:, : z_t.shape[1]].float()
    return seen
