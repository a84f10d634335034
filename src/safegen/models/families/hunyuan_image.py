"""HunyuanImage 2.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from safegen.models.families import Family, families, text_device
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition

GUIDANCE = 3.25
"""Guidance that a distilled model is told in an edit: the default of its pipeline."""
GLYPHS = ("encoder_hidden_states_2", "encoder_attention_mask_2")
"""ByT5's hidden states of quoted letters, and their mask, by the names of the denoiser's call."""


@families.register("hunyuan-image")
class HunyuanImage(Family):
    """Joint attention; hidden states of Qwen2.5-VL and of ByT5 for quoted letters, with masks.

    A part of the pipeline, its guider, holds the scale of guidance; a distilled model is told it.
    """

    pipelines = ("HunyuanImagePipeline",)
    denoisers = ("HunyuanImageTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, mask, glyphs, glyph_mask = type(pipeline).encode_prompt(
            pipeline, prompt=prompts, device=text_device(pipeline), batch_size=len(prompts)
        )
        added = dict(zip(GLYPHS, (glyphs.float(), glyph_mask), strict=True))
        return TextCondition(hidden.float(), mask, added)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        distilled = {"guidance": z_t.new_full((len(z_t),), 1000 * GUIDANCE)}
        # A mean flow over no time is the flow itself (arXiv 2505.13447, eq. 4).
        mean_flow = {"timestep_r": timesteps.to(z_t.dtype)}
        return {
            "hidden_states": z_t,
            "timestep": timesteps.to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "encoder_attention_mask": texts.mask,
            **texts.added,
            **(distilled if config.guidance_embeds else {}),
            **(mean_flow if config.use_meanflow else {}),
        }

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        options = super().call_options(pipeline, settings, count)
        return options | {"distilled_guidance_scale": options.pop("guidance_scale")}

    @contextmanager
    def drawing(self, pipeline: Any, settings: SamplingSettings) -> Iterator[None]:
        """Exchange the guiders for those of another scale in the block."""
        before = {name: getattr(pipeline, name) for name in ("guider", "ocr_guider")}
        try:
            for name, guider in before.items():
                if guider is not None:
                    scaled = guider.new(guidance_scale=settings.guidance_scale)
                    setattr(pipeline, name, scaled)
            yield
        finally:
            for name, guider in before.items():
                setattr(pipeline, name, guider)
