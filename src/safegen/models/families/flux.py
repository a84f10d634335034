"""FLUX.1."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import encoded, families
from safegen.models.families._packing import PackedFamily, image_ids, pack
from safegen.models.options import SamplingSettings
from safegen.models.texts import POOLED, TextCondition

GUIDANCE = 3.5
"""Guidance that a distilled model is told in an edit: the default of its pipeline."""


@families.register("flux")
class Flux(PackedFamily):
    """Joint attention over latents packed as 2 x 2 patches; guidance is an embedding."""

    pipelines = ("FluxPipeline",)
    denoisers = ("FluxTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, pooled, _ = encoded(pipeline, prompts, prompt_2=None)
        return TextCondition(hidden.float(), added={POOLED: pooled.float()})

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        distilled = {"guidance": z_t.new_full((len(z_t),), GUIDANCE)}
        return {
            "hidden_states": pack(z_t),
            "timestep": (timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "pooled_projections": texts.pooled,
            "txt_ids": z_t.new_zeros(texts.hidden.shape[1], 3),
            "img_ids": image_ids(z_t),
            **(distilled if config.guidance_embeds else {}),
        }

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        options = super().call_options(pipeline, settings, count)
        if not settings.negative_prompt:
            del options["negative_prompt"]
            return options
        return options | {"true_cfg_scale": settings.guidance_scale}
