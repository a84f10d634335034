"""Z-Image."""

from __future__ import annotations

from typing import Any

import torch

from safegen.models.anatomy import parameter
from safegen.models.families import Family, families, padded, text_device
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition


@families.register("z-image")
class ZImage(Family):
    """Lists of latents and of texts of any length, hidden states of Qwen3; time runs from noise to
    picture."""

    pipelines = ("ZImagePipeline",)
    denoisers = ("ZImageTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        longest = parameter(pipeline, "max_sequence_length")
        rows, _ = type(pipeline).encode_prompt(
            pipeline,
            prompt=list(prompts),  # the pipeline writes into it
            device=text_device(pipeline),
            do_classifier_free_guidance=False,
            max_sequence_length=longest,
        )
        return padded(rows, longest)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        rows = zip(texts.hidden, texts.lengths, strict=True)
        return {
            "x": list(z_t.unsqueeze(2)),
            "t": 1 - timesteps / 1000,
            "cap_feats": [hidden[:length] for hidden, length in rows],
        }

    def unpacked(self, output: Any, z_t: torch.Tensor) -> torch.Tensor:
        """The network predicts z_0 - n of each latent, and the flow is n - z_0."""
        del z_t
        return -torch.stack(output).squeeze(2)

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        """Its pipeline adds a share of the difference to the conditional prediction: w - 1."""
        options = super().call_options(pipeline, settings, count)
        return options | {"guidance_scale": settings.guidance_scale - 1}
