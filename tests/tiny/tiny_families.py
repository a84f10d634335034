"""Every family of real models, built from its published configuration, shrunk, random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tiny_language_models as language_models
from tiny_parts import (
    AURA_FLOW,
    AUTOENCODER,
    FLUX,
    PIXART,
    SANA,
    SD3,
    SHRUNK,
    autoencoder,
    clip,
    gemma,
    published,
    t5,
)

SMALL_PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "caption_channels": 16,
}
SMALL_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SMALL_HUNYUAN_DIT = {
    "sample_size": 8,
    "num_layers": 4,
    "in_channels": 4,
    "patch_size": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "hidden_size": 16,
    "cross_attention_dim": 16,
}
SMALL_SANA = {
    "sample_size": 2,
    "num_layers": 2,
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 16,
}
SMALL_SANA_AUTOENCODER = {
    "attention_head_dim": 8,
    "encoder_block_out_channels": [8, 8, 8, 16, 16, 16],
    "decoder_block_out_channels": [8, 8, 8, 16, 16, 16],
    "encoder_layers_per_block": [1] * 6,
    "decoder_layers_per_block": [1] * 6,
    "latent_channels": 8,
}
SMALL_SD3 = {
    "sample_size": 8,
    "num_layers": 3,
    "dual_attention_layers": [0],
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "caption_projection_dim": 16,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 16 + 24,
    "pos_embed_max_size": 8,
}
SMALL_FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 8],
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
}
# Chroma1-HD's configuration is the class's defaults.
SMALL_CHROMA = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 8],
    "joint_attention_dim": 16,
    "approximator_hidden_dim": 32,
    "approximator_layers": 1,
}
SMALL_AURA_FLOW = {
    "sample_size": 8,
    "num_mmdit_layers": 2,
    "num_single_dit_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "caption_projection_dim": 16,
    "joint_attention_dim": 16,
    "pos_embed_max_size": 256,
}
# Lumina-Image-2.0's configuration is the class's defaults, but for the channels.
SMALL_LUMINA2 = {
    "sample_size": 8,
    "in_channels": 4,
    "hidden_size": 32,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "axes_dim_rope": (4, 4, 8),
    "axes_lens": (300, 32, 32),
    "cap_feat_dim": 16,
}


def _stable_diffusion(family: str, zero_snr: bool) -> Any:
    import diffusers
    import transformers

    from safegen.models.shipped import FOLDER, shipped_tokenizers

    parts: dict[str, Any] = {}
    for part, small in SHRUNK[family].items():
        config = published(family, part) | small
        if part == "unet":
            parts[part] = diffusers.UNet2DConditionModel.from_config(config)
        else:
            kind = getattr(transformers, config["architectures"][0])
            parts[part] = kind(kind.config_class(**config)).eval()
    vae = diffusers.AutoencoderKL.from_config(published(family, "vae") | AUTOENCODER)
    schedule = published(family, "scheduler")
    if zero_snr:
        schedule |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler = getattr(diffusers, schedule["_class_name"]).from_config(schedule)
    index = json.loads((FOLDER / family / "model_index.json").read_text())
    if family != "sdxl":
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    return getattr(diffusers, index["_class_name"])(
        vae=vae, scheduler=scheduler, **parts, **shipped_tokenizers(family)
    )


def _pixart(alpha: bool) -> Any:
    import diffusers

    tokenizer, encoder = t5()
    # PixArt-alpha's 1024-pixel model has no interpolation scale, and takes additional conditions.
    special = {"use_additional_conditions": True, "interpolation_scale": None} if alpha else {}
    kind = diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(),
        transformer=diffusers.PixArtTransformer2DModel(
            **PIXART["transformer"] | SMALL_PIXART | special
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(**PIXART["scheduler"]),
    )


def _sana() -> Any:
    import diffusers

    tokenizer, encoder = gemma()
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderDC(**SANA["vae"] | SMALL_SANA_AUTOENCODER),
        transformer=diffusers.SanaTransformer2DModel(**SANA["transformer"] | SMALL_SANA),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SANA["scheduler"]),
    )


def _sd3() -> Any:
    import diffusers

    from safegen.models.shipped import shipped_tokenizers

    return diffusers.StableDiffusion3Pipeline(
        **shipped_tokenizers("sdxl"),
        text_encoder=clip("text_encoder", projection_dim=16),
        text_encoder_2=clip("text_encoder_2"),
        tokenizer_3=None,
        text_encoder_3=None,
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.SD3Transformer2DModel(**SD3["transformer"] | SMALL_SD3),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux() -> Any:
    import diffusers

    from safegen.models.shipped import shipped_tokenizers

    tokenizer, encoder = t5()
    pipeline = diffusers.FluxPipeline(
        tokenizer=shipped_tokenizers("sdxl")["tokenizer"],
        text_encoder=clip("text_encoder", kind="CLIPTextModel"),
        tokenizer_2=tokenizer,
        text_encoder_2=encoder,
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.FluxTransformer2DModel(**FLUX["transformer"] | SMALL_FLUX),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    pipeline.default_sample_size = 8
    return pipeline


def _chroma() -> Any:
    import diffusers

    tokenizer, encoder = t5()
    pipeline = diffusers.ChromaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.ChromaTransformer2DModel(**SMALL_CHROMA),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    pipeline.default_sample_size = 8
    return pipeline


def _aura_flow() -> Any:
    import diffusers

    tokenizer, encoder = t5()
    transformer = diffusers.AuraFlowTransformer2DModel(**AURA_FLOW["transformer"] | SMALL_AURA_FLOW)
    # A random timestep is so short that the gates of all blocks would be closed.
    transformer.time_step_proj.linear_2.weight.data *= 30
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def _lumina2() -> Any:
    import diffusers

    tokenizer, encoder = gemma()
    return diffusers.Lumina2Pipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.Lumina2Transformer2DModel(**SMALL_LUMINA2),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def _hunyuan_dit() -> Any:
    import diffusers
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(ord("a") + number) for number in range(26)]
    words = [*special, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.model_max_length = 77
    bert = BertConfig(vocab_size=len(words), max_position_embeddings=77, **SMALL_BERT)
    tokenizer_2, t5_encoder = t5()
    width = t5_encoder.config.d_model
    return diffusers.HunyuanDiTPipeline(
        tokenizer=tokenizer,
        text_encoder=BertModel(bert, add_pooling_layer=False).eval(),
        tokenizer_2=tokenizer_2,
        text_encoder_2=t5_encoder,
        vae=autoencoder(),
        transformer=diffusers.HunyuanDiT2DModel(
            **SMALL_HUNYUAN_DIT, cross_attention_dim_t5=width, pooled_projection_dim=width
        ),
        scheduler=diffusers.DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.03,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


BUILDERS: dict[str, Callable[..., Any]] = {
    "sana": _sana,
    "sd3": _sd3,
    "flux": _flux,
    "chroma": _chroma,
    "aura-flow": _aura_flow,
    "lumina2": _lumina2,
    "qwen-image": language_models.qwen_image,
    "z-image": language_models.z_image,
    "flux2": language_models.flux2,
    "wan": language_models.wan,
    "hidream": language_models.hidream,
    "hunyuan-dit": _hunyuan_dit,
    "hunyuan-image": language_models.hunyuan_image,
}
FAMILIES = [*SHRUNK, "pixart", *BUILDERS]


def build(family: str, seed: int = 0, zero_snr: bool = False, **special: Any) -> Any:
    """A pipeline of a family of ``FAMILIES``, or of ``pixart-alpha``."""
    import torch

    torch.manual_seed(seed)
    if family in SHRUNK:
        pipeline = _stable_diffusion(family, zero_snr)
    elif family in BUILDERS:
        pipeline = BUILDERS[family](**special)
    else:
        pipeline = _pixart(alpha=family == "pixart-alpha")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
