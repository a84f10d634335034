"""One call for all denoisers: UNets and transformers, whatever they take beside the latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from safegen.models.conditioning import TextCondition


def predict(
    denoiser: nn.Module, z_t: torch.Tensor, timesteps: torch.Tensor, condition: TextCondition
) -> torch.Tensor:
    """A denoiser's output (B, C, H, W), float32, on the denoiser's device.

    Args:
        denoiser: of a family that ``safegen.models.anatomy`` knows; accelerate may have wrapped
            it for several processes.
        z_t: noised latents (B, C, H, W).
        timesteps: as the scheduler counts them (B,).
        condition: the texts (B).
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
    # Channels beyond the latent's are a learned variance, which sampling does not use.
    seen: torch.Tensor = output[:, : z_t.shape[1]].float()
    return seen
