"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import Family, encoded, families
from safegen.models.texts import POOLED, TextCondition


@families.register("stable-diffusion-3")
class StableDiffusion3(Family):
    """Joint attention; hidden states of two CLIP encoders and T5, pooled features of CLIP's.

    T5 may be missing; its hidden states are then zeros.
    """

    pipelines = ("StableDiffusion3Pipeline",)
    denoisers = ("SD3Transformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        others = {"prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False}
        hidden, _, pooled, _ = encoded(pipeline, prompts, **others)
        return TextCondition(hidden.float(), added={POOLED: pooled.float()})

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        return {"hidden_states": z_t, "timestep": timesteps, **self.text_inputs(texts)}

    def text_inputs(self, texts: TextCondition) -> dict[str, Any]:
        return {"encoder_hidden_states": texts.hidden, "pooled_projections": texts.pooled}
