"""Wan, whose videos of one frame are pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import parameter
from safegen.models.families import Family, families, text_device
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition


@families.register("wan")
class Wan(Family):
    """Transformers over frames; hidden states of UMT5, which are zeros beyond a text's end."""

    pipelines = ("WanPipeline",)
    denoisers = ("WanTransformer3DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        if pipeline.transformer_2 is not None:
            raise SafegenError(
                f"{type(pipeline).__name__}: it draws with two denoisers in turn, and an edit "
                "changes one; use a Wan with one, such as Wan 2.1 or Wan 2.2 TI2V 5B"
            )
        hidden, _ = type(pipeline).encode_prompt(
            pipeline,
            prompt=prompts,
            device=text_device(pipeline),
            do_classifier_free_guidance=False,
            max_sequence_length=parameter(pipeline, "max_sequence_length"),
        )
        return TextCondition(hidden.float())

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        return {
            "hidden_states": self.packed(z_t),
            "timestep": timesteps,
            "encoder_hidden_states": texts.hidden,
        }

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.unsqueeze(2)

    def unpacked(self, output: torch.Tensor, z_t: torch.Tensor) -> torch.Tensor:
        del z_t
        return output.squeeze(2)

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        return {**super().call_options(pipeline, settings, count), "num_frames": 1}

    def pictures(self, output: Any) -> np.ndarray:
        found: np.ndarray = output.frames[:, 0]
        return found
