"""AuraFlow."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import Family, encoded, families
from safegen.models.texts import TextCondition


@families.register("aura-flow")
class AuraFlow(Family):
    """Joint attention; hidden states of T5, which are zeros beyond a text's end."""

    pipelines = ("AuraFlowPipeline",)
    denoisers = ("AuraFlowTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, *_ = encoded(pipeline, prompts, do_classifier_free_guidance=False)
        return TextCondition(hidden.float())

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        return {
            "hidden_states": z_t,
            "timestep": (timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
        }
