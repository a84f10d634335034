"""Which weights are vision-only, in every text-to-image denoiser of diffusers, tiny and random."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from safegen.errors import SafegenError
from safegen.models import tracing
from safegen.models.anatomy import self_attention_names
from safegen.models.probes import Probe

HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
SMALL = {"in_channels": 4, "num_layers": 2, **HEADS}
DOUBLE = {"in_channels": 16, "num_layers": 2, "num_single_layers": 2, **HEADS}
FLUX = {**DOUBLE, "joint_attention_dim": 16, "axes_dims_rope": (4, 4, 8)}
COGVIEW = {
    **SMALL, "out_channels": 4, "text_embed_dim": 16, "time_embed_dim": 16, "condition_dim": 8,
    "pos_embed_max_size": 16, "sample_size": 8,
}  # fmt: skip
HUNYUAN = {
    **DOUBLE, "in_channels": 4, "out_channels": 4, "num_refiner_layers": 1, "text_embed_dim": 16,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": {
        "sample_size": 8, "block_out_channels": (16, 16, 32, 32), "layers_per_block": 1,
        "norm_num_groups": 8, "cross_attention_dim": 16, "attention_head_dim": 2,
    },
    "Kandinsky3UNet": {
        "time_embedding_dim": 16, "groups": 4, "attention_head_dim": 8,
        "block_out_channels": (16, 16, 32, 32), "cross_attention_dim": 16, "encoder_hid_dim": 16,
    },
    "StableCascadeUNet": {
        "in_channels": 4, "out_channels": 4, "timestep_ratio_embedding_dim": 8,
        "conditioning_dim": 16, "block_out_channels": (16, 16), "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1),
        "clip_text_in_channels": 16, "clip_text_pooled_in_channels": 12,
        "clip_image_in_channels": 8,
    },
    "SD3Transformer2DModel": {
        **SMALL, "sample_size": 8, "out_channels": 4, "joint_attention_dim": 16,
        "caption_projection_dim": 32, "pooled_projection_dim": 12, "pos_embed_max_size": 4,
        "dual_attention_layers": (0,), "qk_norm": "rms_norm",
    },
    "FluxTransformer2DModel": FLUX | {"pooled_projection_dim": 12, "guidance_embeds": True},
    "Flux2Transformer2DModel": FLUX
    | {"timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4)},
    "Flux3Transformer2DModel": FLUX
    | {"cond_in_channels": 16, "timestep_channels": 16, "axes_dims_rope": (4, 4, 4, 4)},
    "ChromaTransformer2DModel": FLUX
    | {
        "approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1,
    },
    "BriaTransformer2DModel": FLUX | {"axes_dims_rope": [4, 4, 8]},
    "BriaFiboTransformer2DModel": FLUX | {"axes_dims_rope": [4, 4, 8], "text_encoder_dim": 16},
    "OvisImageTransformer2DModel": FLUX | {"out_channels": 16},
    "LongCatImageTransformer2DModel": FLUX | {"axes_dims_rope": [4, 4, 8]},
    "AuraFlowTransformer2DModel": {
        **HEADS, "sample_size": 8, "num_mmdit_layers": 2, "num_single_dit_layers": 2,
        "joint_attention_dim": 16, "caption_projection_dim": 32, "pos_embed_max_size": 256,
    },
    "QwenImageTransformer2DModel": {
        **SMALL, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 16,
        "axes_dims_rope": (4, 4, 8),
    },
    "ZImageTransformer2DModel": {
        "in_channels": 4, "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2,
        "n_kv_heads": 2, "cap_feat_dim": 16, "axes_dims": [4, 4, 8], "axes_lens": [256, 32, 32],
    },
    "Lumina2Transformer2DModel": {
        "sample_size": 8, "in_channels": 4, "hidden_size": 32, "num_layers": 2,
        "num_refiner_layers": 1, "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 8,
        "axes_dim_rope": (4, 4, 8), "axes_lens": (128, 32, 32), "cap_feat_dim": 16,
    },
    "LuminaNextDiT2DModel": {
        "sample_size": 8, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 2,
        "num_kv_heads": 1, "multiple_of": 8, "cross_attention_dim": 16,
    },
    "HiDreamImageTransformer2DModel": {
        **DOUBLE, "in_channels": 4, "patch_size": 2, "caption_channels": [16, 24],
        "text_emb_dim": 12, "axes_dims_rope": (4, 4, 8), "max_resolution": (32, 32),
        "llama_layers": [0, 1, 2, 3],
    },
    "SanaTransformer2DModel": {
        **SMALL, "sample_size": 2, "out_channels": 4, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": 16,
    },
    "PixArtTransformer2DModel": {
        **SMALL, "sample_size": 8, "cross_attention_dim": 32, "caption_channels": 16,
    },
    "HunyuanDiT2DModel": {
        **SMALL, "patch_size": 2, "sample_size": 8, "hidden_size": 32, "cross_attention_dim": 16,
        "cross_attention_dim_t5": 24, "pooled_projection_dim": 12,
    },
    "HunyuanImageTransformer2DModel": HUNYUAN | {"rope_axes_dim": (8, 8)},
    "HunyuanVideoTransformer3DModel": HUNYUAN
    | {"pooled_projection_dim": 12, "rope_axes_dim": (4, 4, 8)},
    "WanTransformer3DModel": {
        **SMALL, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32,
        "rope_max_seq_len": 32,
    },
    "Kandinsky5Transformer3DModel": {
        "in_visual_dim": 4, "in_text_dim": 16, "in_text_dim2": 12, "time_dim": 16,
        "out_visual_dim": 4, "model_dim": 32, "ff_dim": 32, "num_text_blocks": 1,
        "num_visual_blocks": 2, "axes_dims": (4, 4, 8),
    },
    "PRXTransformer2DModel": {
        "in_channels": 4, "context_in_dim": 16, "hidden_size": 32, "num_heads": 2, "depth": 2,
        "axes_dim": [8, 8],
    },
    "CogView3PlusTransformer2DModel": COGVIEW,
    "CogView4Transformer2DModel": COGVIEW | {"rope_axes_dim": (8, 8)},
    "OmniGenTransformer2DModel": {
        "in_channels": 4, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 32, "num_layers": 2, "vocab_size": 32, "pad_token_id": 0,
        "time_step_dim": 16, "pos_embed_max_size": 16,
        "rope_scaling": {"long_factor": [1.0] * 8, "short_factor": [1.0] * 8},
    },
    "Krea2Transformer2DModel": {
        **SMALL, "in_channels": 16, "num_key_value_heads": 1, "intermediate_size": 32,
        "timestep_embed_dim": 16, "text_hidden_dim": 16, "num_text_layers": 2,
        "text_num_attention_heads": 1, "text_num_key_value_heads": 1,
        "text_intermediate_size": 32, "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 4, 8),
    },
    "ErnieImageTransformer2DModel": {
        "hidden_size": 32, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 32,
        "in_channels": 4, "out_channels": 4, "text_in_dim": 16, "rope_axes_dim": (4, 4, 8),
    },
    "GlmImageTransformer2DModel": {
        **SMALL, "out_channels": 4, "text_embed_dim": 16, "time_embed_dim": 16,
        "condition_dim": 8, "prior_vq_quantizer_codebook_size": 32,
    },
    "Ideogram4Transformer2DModel": {
        **SMALL, "intermediate_size": 32, "adaln_dim": 16, "llm_features_dim": 24,
        "mrope_section": (4, 2, 2),
    },
    "NucleusMoEImageTransformer2DModel": {
        **SMALL, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 16,
        "axes_dims_rope": (4, 4, 8), "moe_enabled": False,
    },
}  # fmt: skip
PLAIN = "to_q to_k to_v to_out.*"
NORMED = f"{PLAIN} norm_q norm_k"
DOUBLES = {"transformer_blocks.*.attn": NORMED}
"""Double-stream blocks: the image side; single-stream blocks see both."""
EXPECTED: dict[str, dict[str, str]] = {
    "UNet2DConditionModel": {
        "down_blocks.*.attentions.*.transformer_blocks.*.attn1": PLAIN,
        "mid_block.attentions.*.transformer_blocks.*.attn1": PLAIN,
        "up_blocks.*.attentions.*.transformer_blocks.*.attn1": PLAIN,
    },
    "Kandinsky3UNet": {
        "down_blocks.*.attentions.*.attention": PLAIN,
        "up_blocks.*.attentions.*.attention": PLAIN,
    },
    # Keys and values are projected from image and text tokens together.
    "StableCascadeUNet": {
        "down_blocks.*.*.attention": "to_q to_out.*",
        "up_blocks.*.*.attention": "to_q to_out.*",
    },
    "SD3Transformer2DModel": DOUBLES | {"transformer_blocks.*.attn2": NORMED},
    "FluxTransformer2DModel": DOUBLES,
    "Flux2Transformer2DModel": DOUBLES,
    "Flux3Transformer2DModel": {"mode_blocks.image.*.attn": NORMED},
    "ChromaTransformer2DModel": DOUBLES,
    "BriaTransformer2DModel": DOUBLES,
    "BriaFiboTransformer2DModel": DOUBLES,
    "OvisImageTransformer2DModel": DOUBLES,
    "LongCatImageTransformer2DModel": DOUBLES,
    "AuraFlowTransformer2DModel": {"joint_transformer_blocks.*.attn": PLAIN},
    "QwenImageTransformer2DModel": DOUBLES,
    "ZImageTransformer2DModel": {"noise_refiner.*.attention": NORMED},
    "Lumina2Transformer2DModel": {"noise_refiner.*.attn": NORMED},
    "LuminaNextDiT2DModel": {"layers.*.attn1": "to_q to_k to_v norm_q norm_k"},
    "HiDreamImageTransformer2DModel": {
        "double_stream_blocks.*.block.attn1": "to_q to_k to_v to_out q_rms_norm k_rms_norm"
    },
    "SanaTransformer2DModel": {"transformer_blocks.*.attn1": PLAIN},
    "PixArtTransformer2DModel": {"transformer_blocks.*.attn1": PLAIN},
    "HunyuanDiT2DModel": {"blocks.*.attn1": NORMED},
    "HunyuanImageTransformer2DModel": DOUBLES,
    "HunyuanVideoTransformer3DModel": DOUBLES,
    "WanTransformer3DModel": {"blocks.*.attn1": NORMED},
    "Kandinsky5Transformer3DModel": {
        "visual_transformer_blocks.*.self_attention": (
            "to_query to_key to_value out_layer query_norm key_norm"
        )
    },
    "NucleusMoEImageTransformer2DModel": DOUBLES,
    "PRXTransformer2DModel": {"blocks.*.attention": "img_qkv_proj to_out.* norm_q norm_k"},
}
"""Layers that multiply image tokens alone, by attention, as the published descriptions have it."""
BLIND = sorted(CONFIGS.keys() - EXPECTED.keys())
"""Classes all of whose attention is shared by text and picture."""


def _tiny(name: str) -> Any:
    import diffusers

    with torch.device("meta"):
        return getattr(diffusers, name)(**CONFIGS[name])


@pytest.mark.parametrize("name", EXPECTED)
def test_what_multiplies_image_tokens_alone(name: str) -> None:
    denoiser = _tiny(name)
    layers: dict[str, set[str]] = {}
    for parameter in self_attention_names(denoiser):
        pattern = re.sub(r"\.\d+(?=\.|$)", ".*", parameter.rpartition(".")[0])
        attention = next(each for each in EXPECTED[name] if pattern.startswith(f"{each}."))
        layers.setdefault(attention, set()).add(pattern.removeprefix(f"{attention}."))
    assert layers == {key: {*value.split()} for key, value in EXPECTED[name].items()}


@pytest.mark.parametrize("name", BLIND)
def test_attention_that_is_all_shared_is_refused_by_name(name: str) -> None:
    with pytest.raises(SafegenError, match=rf"^{name}: no weight .*shared by text and"):
        self_attention_names(_tiny(name))


@pytest.mark.parametrize("name", ["SD3Transformer2DModel", "QwenImageTransformer2DModel"])
def test_sizes_are_the_same_without_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models pass shapes alone, small ones zeros."""
    zeros = tracing.trace(denoiser := _tiny(name))
    monkeypatch.setattr(tracing, "SMALL", 0)
    monkeypatch.setattr(tracing, "_KNOWN", {})
    monkeypatch.setattr(tracing, "_on_zeros", None)
    assert tracing.trace(denoiser) == zeros


def test_a_probe_fits_short_positions() -> None:
    probe = Probe.fitting({"patch_size": 2, "pos_embed_max_size": 4})
    assert (probe.with_picture().height, probe.with_picture().width) == (4, 8)
