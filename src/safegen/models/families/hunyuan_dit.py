"""HunyuanDiT."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

from safegen.models.anatomy import model_size
from safegen.models.families import Family, encoded, families, text_device
from safegen.models.texts import TextCondition

LENGTHS = (77, 256)
"""Tokens of CLIP's and of mT5's texts, which the pipeline's call fixes."""
TOLD_SIZE = 1024.0
"""Side of the original picture that the pipeline's call tells the model by default."""
BASE_SIDE = 64
"""Side in latent pixels of the grid that rotary positions are scaled to: 512 pixels."""


@families.register("hunyuan-dit")
class HunyuanDiT(Family):
    """Self-attention of image tokens alone; hidden states of CLIP and of mT5, with masks.

    Versions before 1.2 are told the picture's sizes and a style.
    """

    pipelines = ("HunyuanDiTPipeline",)
    denoisers = ("HunyuanDiT2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        (hidden, mask), (t5, t5_mask) = (
            encoded(
                pipeline,
                prompts,
                do_classifier_free_guidance=False,
                max_sequence_length=length,
                text_encoder_index=index,
            )[::2]
            for index, length in enumerate(LENGTHS)
        )
        count, device, side = len(prompts), text_device(pipeline), float(model_size(pipeline))
        told = torch.tensor([TOLD_SIZE, TOLD_SIZE, side, side, 0.0, 0.0], device=device)
        added = {
            "encoder_hidden_states_t5": t5.float(),
            "text_embedding_mask_t5": t5_mask,
            "image_meta_size": told.expand(count, -1),
            "style": torch.zeros(count, dtype=torch.long, device=device),
        }
        return TextCondition(hidden.float(), mask, added)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        grid = tuple(side // config.patch_size for side in z_t.shape[-2:])
        region = get_resize_crop_region_for_grid(grid, BASE_SIDE // config.patch_size)
        return {
            "hidden_states": z_t,
            "timestep": timesteps.to(z_t.dtype),  # whose dtype is that of its embedding
            "encoder_hidden_states": texts.hidden,
            "text_embedding_mask": texts.mask,
            "image_rotary_emb": get_2d_rotary_pos_embed(
                config.attention_head_dim, region, grid, device=z_t.device, output_type="pt"
            ),
            **texts.added,
        }
