"""Lumina-Image 2.0."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import Family, encoded, families
from safegen.models.texts import TextCondition


@families.register("lumina2")
class Lumina2(Family):
    """Hidden states of Gemma and a mask; time runs from noise to picture.

    A system prompt precedes every prompt except the negative one, so the empty one has none either.
    """

    pipelines = ("Lumina2Pipeline",)
    denoisers = ("Lumina2Transformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, mask, *_ = encoded(pipeline, prompts, do_classifier_free_guidance=False)
        return TextCondition(hidden.float(), mask)

    def empty(self, pipeline: Any) -> TextCondition:
        *_, hidden, mask = encoded(pipeline, [""], do_classifier_free_guidance=True)
        return TextCondition(hidden.float(), mask)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        return {
            "hidden_states": z_t,
            "timestep": (1 - timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "encoder_attention_mask": texts.mask,
        }

    def unpacked(self, output: torch.Tensor, z_t: torch.Tensor) -> torch.Tensor:
        """The network predicts z_0 - n, and the flow is n - z_0."""
        del z_t
        return -output
