"""Stable Diffusion 1.x, 2.x and XL."""

from __future__ import annotations

from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, model_size
from safegen.models.families import Family, encoded, families, sizes
from safegen.models.options import SamplingSettings
from safegen.models.texts import POOLED, TextCondition


@families.register("stable-diffusion")
class StableDiffusion(Family):
    """UNets with hidden states; for XL, pooled features and six sizes too."""

    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    denoisers = ("UNet2DConditionModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        found = encoded(pipeline, prompts, do_classifier_free_guidance=False)
        hidden = found[0].float()
        if len(found) == 2:  # 1.x and 2.x: hidden states and their negatives
            return TextCondition(hidden)
        pooled = found[2].float()
        return TextCondition(hidden, added={POOLED: pooled, **_sizes(pipeline, pooled)})

    def empty(self, pipeline: Any) -> TextCondition | None:
        if not _zeroes_the_empty(pipeline):
            return None
        condition = self.encode(pipeline, [""])
        zeros = {name: torch.zeros_like(value) for name, value in condition.embeddings.items()}
        return TextCondition(zeros.pop("hidden"), added={**condition.added, **zeros})

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        added = {"added_cond_kwargs": dict(texts.added)} if texts.added else {}
        hidden = {"encoder_hidden_states": texts.hidden}
        return {"sample": z_t, "timestep": timesteps, **hidden, **added}

    def text_inputs(self, texts: TextCondition) -> dict[str, Any]:
        pooled = {} if texts.pooled is None else {"added_cond_kwargs": {POOLED: texts.pooled}}
        return {"encoder_hidden_states": texts.hidden, **pooled}

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        options = super().call_options(pipeline, settings, count)
        # XL's call uses zeros for a missing negative prompt, but not for an empty one.
        if not settings.negative_prompt and _zeroes_the_empty(pipeline):
            del options["negative_prompt"]
        return options


def _zeroes_the_empty(pipeline: Any) -> bool:
    return bool(pipeline.config.get("force_zeros_for_empty_prompt", False))


def _sizes(pipeline: Any, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    """XL's sizes (N, 6): original, crop corner and target, height before width."""
    config: Any = denoiser_of(pipeline).config
    side = float(model_size(pipeline))
    ids = [side, side, 0.0, 0.0, side, side]
    width = config.addition_time_embed_dim * len(ids) + pooled.shape[1]
    if width != config.projection_class_embeddings_input_dim:
        raise SafegenError(
            f"{type(pipeline).__name__}: its UNet does not take SDXL's six sizes beside the "
            "text (an SDXL refiner does not); use a base model"
        )
    return sizes(pipeline, len(pooled), {"time_ids": ids})
