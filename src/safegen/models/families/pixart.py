"""PixArt-alpha and PixArt-Sigma."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.anatomy import denoiser_of, model_size
from safegen.models.families import Family, encoded, families, sizes
from safegen.models.texts import TextCondition


@families.register("pixart")
class PixArt(Family):
    """Transformers with hidden states and a mask; PixArt-alpha's largest takes sizes too."""

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    denoisers = ("PixArtTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, mask, *_ = encoded(pipeline, prompts, do_classifier_free_guidance=False)
        side = float(model_size(pipeline))
        told = {"resolution": [side, side], "aspect_ratio": [1.0]}
        alpha = getattr(denoiser_of(pipeline), "use_additional_conditions", False)
        return TextCondition(
            hidden.float(), mask, sizes(pipeline, len(prompts), told) if alpha else {}
        )

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        return {
            "hidden_states": z_t,
            "timestep": timesteps,
            "encoder_hidden_states": texts.hidden,
            "encoder_attention_mask": texts.mask,
            **({"added_cond_kwargs": dict(texts.added)} if texts.added else {}),
        }
