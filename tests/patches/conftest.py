"""Builders of tiny text encoders and of a tiny Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

V_PREDICTION = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def _text(tokenizer: Any, width: int, activation: str, kind: Any = CLIPTextModel) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_act=activation,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def _xl(first: Any) -> Any:
    """A StableDiffusionXLPipeline that shares the parts of a tiny one."""
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=48,
        attention_head_dim=2,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=72,
    )
    return StableDiffusionXLPipeline(
        vae=first.vae,
        text_encoder=_text(first.tokenizer, 16, "quick_gelu"),
        text_encoder_2=_text(first.tokenizer, 32, "gelu", CLIPTextModelWithProjection),
        tokenizer=first.tokenizer,
        tokenizer_2=first.tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler.from_config(first.scheduler.config, **V_PREDICTION),
        add_watermarker=False,
    )


@pytest.fixture(scope="session")
def build_text() -> Callable[..., Any]:
    """The builder of text encoders."""
    return _text


@pytest.fixture(scope="session")
def build_xl() -> Callable[..., Any]:
    """The builder of pipelines of Stable Diffusion XL from parts of a tiny one."""
    return _xl
