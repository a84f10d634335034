"""Sana."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.anatomy import parameter
from safegen.models.families import Family, encoded, families
from safegen.models.texts import TextCondition


@families.register("sana")
class Sana(Family):
    """Transformers with hidden states and a mask; an instruction precedes every prompt."""

    pipelines = ("SanaPipeline",)
    denoisers = ("SanaTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str], instructed: bool = True) -> TextCondition:
        instruction = parameter(pipeline, "complex_human_instruction") if instructed else None
        told = {"complex_human_instruction": instruction} if instruction else {}
        hidden, mask, *_ = encoded(pipeline, prompts, do_classifier_free_guidance=False, **told)
        return TextCondition(hidden.float(), mask)

    def empty(self, pipeline: Any) -> TextCondition:
        return self.encode(pipeline, [""], instructed=False)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        return {
            "hidden_states": z_t,
            "timestep": timesteps * config.get("timestep_scale", 1),
            "encoder_hidden_states": texts.hidden,
            "encoder_attention_mask": texts.mask,
        }
