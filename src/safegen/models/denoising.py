"""One call for all denoisers: UNets and transformers, with any conditions beside the latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from safegen.models.families import family_with
from safegen.models.merging import merged_inputs
from safegen.models.texts import TextCondition


def predict(
    denoiser: nn.Module,
    z_t: torch.Tensor,
    timesteps: torch.Tensor,
    condition: TextCondition,
    hooked: bool = True,
) -> torch.Tensor:
    """Run a denoiser; returns its output (B, C, H, W), float32, on its device.

    Args:
        denoiser: network of a family in ``safegen.models.families``, possibly wrapped by
            accelerate for several processes.
        z_t: noised latents (B, C, H, W) in the autoencoder's layout.
        timesteps: timesteps of the scheduler (B,).
        condition: text conditions (B).
        hooked: whether hooks on the denoiser run, such as those of defenses that guide the
            pipeline's own call.
    """
    weight = next(each for each in denoiser.parameters() if each.is_floating_point())
    network: Any = getattr(denoiser, "module", denoiser)
    family = family_with(network)
    latents = z_t.to(weight.device, weight.dtype)
    texts = condition.to(weight.device, weight.dtype)
    given = family.inputs(network.config, latents, timesteps.to(weight.device), texts)
    call = denoiser if hooked else network.forward
    given = given if hooked else merged_inputs(network, given)
    output = family.unpacked(call(**given, return_dict=False)[0], latents)
    # Channels beyond the latent's are a learned variance, which sampling ignores.
    seen: torch.Tensor = output[:, : z_t.shape[1]].float()
    return seen
