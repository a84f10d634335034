"""Qwen-Image."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.anatomy import parameter
from safegen.models.families import encoded, families, padded
from safegen.models.families._packing import PackedFamily, pack
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition


@families.register("qwen-image")
class QwenImage(PackedFamily):
    """Joint attention over latents packed as 2 x 2 patches; hidden states of Qwen2.5-VL and a mask.

    Its pipeline pads texts to the longest of a batch, and masks the padding, so padding all to one
    length changes nothing.
    """

    pipelines = ("QwenImagePipeline",)
    denoisers = ("QwenImageTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        longest = parameter(pipeline, "max_sequence_length")
        hidden, mask = encoded(pipeline, prompts, max_sequence_length=longest)
        rows = hidden if mask is None else [h[m.bool()] for h, m in zip(hidden, mask, strict=True)]
        return padded(list(rows), longest)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        height, width = z_t.shape[2:]
        return {
            "hidden_states": pack(z_t),
            "timestep": (timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "encoder_hidden_states_mask": texts.mask,
            "img_shapes": [[(1, height // 2, width // 2)]] * len(z_t),
        }

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        options = super().call_options(pipeline, settings, count)
        return options | {"true_cfg_scale": options.pop("guidance_scale")}
