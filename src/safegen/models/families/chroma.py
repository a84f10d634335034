"""Chroma, a FLUX.1 without CLIP and without distilled guidance."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.families import encoded, families
from safegen.models.families._packing import PackedFamily, image_ids, pack
from safegen.models.texts import TextCondition


@families.register("chroma")
class Chroma(PackedFamily):
    """Joint attention over latents packed as 2 x 2 patches; hidden states of T5 and a mask.

    The mask leaves one token beyond a text's end, and is added to the logits, as the pipeline does.
    """

    pipelines = ("ChromaPipeline",)
    denoisers = ("ChromaTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, _, mask, *_ = encoded(pipeline, prompts, do_classifier_free_guidance=False)
        return TextCondition(hidden.float(), mask.float())

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        assert texts.mask is not None
        tokens = pack(z_t)
        return {
            "hidden_states": tokens,
            "timestep": (timesteps / 1000).to(z_t.dtype),
            "encoder_hidden_states": texts.hidden,
            "txt_ids": z_t.new_zeros(texts.hidden.shape[1], 3),
            "img_ids": image_ids(z_t),
            "attention_mask": torch.nn.functional.pad(texts.mask, (0, tokens.shape[1]), value=1.0),
        }
