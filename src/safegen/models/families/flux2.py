"""FLUX.2."""

from __future__ import annotations

from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.families import encoded, families
from safegen.models.families._packing import PackedFamily, image_ids, pack
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition

GUIDANCE = 4.0
"""Guidance that a distilled model is told in an edit: the default of its pipeline."""


@families.register("flux2")
class Flux2(PackedFamily):
    """Joint attention over latents packed as 2 x 2 patches; hidden states of three layers of a
    language model, without a mask.

    FLUX.2 [dev] is told its guidance as an embedding; [klein] is guided by an empty prompt.
    """

    pipelines = ("Flux2Pipeline", "Flux2KleinPipeline")
    denoisers = ("Flux2Transformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, _ = encoded(pipeline, prompts)
        return TextCondition(hidden.float())

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        places = torch.arange(texts.hidden.shape[1], device=z_t.device)
        distilled = {"guidance": z_t.new_full((len(z_t),), GUIDANCE)}
        return {
            "hidden_states": pack(z_t),
            "timestep": (timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "txt_ids": torch.nn.functional.pad(places[:, None], (3, 0)),
            "img_ids": torch.nn.functional.pad(image_ids(z_t), (0, 1)),
            **(distilled if config.guidance_embeds else {}),
        }

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """Its pipeline's call takes patches (B, 4 C, H/2, W/2)."""
        count, channels, height, width = latents.shape
        return pack(latents).mT.reshape(count, 4 * channels, height // 2, width // 2)

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        options = {"guidance_scale": settings.guidance_scale}
        if not settings.negative_prompt:
            return options
        if type(pipeline).__name__ == "Flux2Pipeline" or pipeline.config.is_distilled:
            raise SafegenError(
                f"{type(pipeline).__name__}: a guidance-distilled model takes no negative prompt; "
                "draw without one"
            )
        negative, _ = encoded(pipeline, [settings.negative_prompt] * count)
        return options | {"negative_prompt_embeds": negative}
