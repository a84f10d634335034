"""Families whose texts are encoded by a language model, and Wan."""

from __future__ import annotations

from typing import Any

from tiny_parts import ENCODER, FLUX, autoencoder, clip, qwen3, qwen_tokenizer, t5

AXES = {"axes_dims_rope": [4, 4, 8]}
# These configurations are published as the classes' defaults.
SMALL_QWEN_IMAGE = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": 16,
    **AXES,
}
SMALL_Z_IMAGE = {
    "in_channels": 4,
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 16,
    "axes_dims": [4, 4, 8],
    "axes_lens": [1024, 32, 32],
}
SMALL_FLUX2 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 4, 4],
    "joint_attention_dim": 3 * 16,
    "timestep_guidance_channels": 16,
}
SMALL_WAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "rope_max_seq_len": 32,
}
SMALL_VIDEO_AUTOENCODER = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [0.5, 1.0, 2.0, 1.5],
}


SMALL_HUNYUAN_IMAGE = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_embed_dim": 16,
    "text_embed_2_dim": 16,
    "rope_axes_dim": [8, 8],
}
SMALL_HUNYUAN_AUTOENCODER = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [32] * 4,
    "layers_per_block": 1,
    "spatial_compression_ratio": 8,
    "sample_size": 64,
    "scaling_factor": 0.75,
}


SMALL_HIDREAM = {
    "patch_size": 2,
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "caption_channels": [16, 16],
    "text_emb_dim": 16 + 24,
    "axes_dims_rope": [4, 4, 8],
    "max_resolution": [32, 32],
    "llama_layers": [0, 1, 1],
}


def _with_size(pipeline: Any) -> Any:
    pipeline.default_sample_size = 8
    return pipeline


def _instructed(pipeline: Any) -> Any:
    """Tell how long the instruction is, which has fewer of the small tokenizer's tokens."""
    instruction = pipeline.prompt_template_encode.split("{}")[0]
    tokens = pipeline.tokenizer(instruction).input_ids
    pipeline.prompt_template_encode_start_idx = len(tokens)
    return _with_size(pipeline)


def _qwen2_5_vl(vocabulary: int, layers: int = 2) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    text = ENCODER | {"num_key_value_heads": 1, "rope_scaling": rope, "vocab_size": vocabulary}
    text["num_hidden_layers"] = layers
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    tokens = dict.fromkeys(("image_token_id", "video_token_id", "vision_start_token_id"), 0)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_image() -> Any:
    import diffusers

    tokenizer = qwen_tokenizer()
    pipeline = diffusers.QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=_qwen2_5_vl(len(tokenizer)),
        vae=diffusers.AutoencoderKLQwenImage(**SMALL_VIDEO_AUTOENCODER),
        transformer=diffusers.QwenImageTransformer2DModel(**SMALL_QWEN_IMAGE),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    return _instructed(pipeline)


def z_image() -> Any:
    import diffusers

    pipeline = diffusers.ZImagePipeline(
        tokenizer=qwen_tokenizer(),
        text_encoder=qwen3(2).model,
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.ZImageTransformer2DModel(**SMALL_Z_IMAGE),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _with_size(pipeline)


def flux2(distilled: bool = False) -> Any:
    """FLUX.2 [klein], or with distilled guidance [dev], here with [klein]'s kind of encoder."""
    import diffusers
    import torch

    kind = diffusers.Flux2Pipeline if distilled else diffusers.Flux2KleinPipeline
    size = {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4}
    vae = diffusers.AutoencoderKLFlux2(**size, latent_channels=4)
    vae.bn.running_mean.copy_(torch.linspace(-0.2, 0.2, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    transformer = diffusers.Flux2Transformer2DModel(**SMALL_FLUX2, guidance_embeds=distilled)
    # A random timestep is so short that the gates of all blocks would be closed.
    transformer.time_guidance_embed.timestep_embedder.linear_2.weight.data *= 30
    pipeline = kind(
        tokenizer=qwen_tokenizer(),
        text_encoder=qwen3(30),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    return _with_size(pipeline)


def wan(stages: int = 1) -> Any:
    """Wan with one denoiser, or with two in turn."""
    import diffusers

    tokenizer, encoder = t5()
    denoisers = [diffusers.WanTransformer3DModel(**SMALL_WAN) for _ in range(stages)]
    second = {"transformer_2": denoisers[1], "boundary_ratio": 0.9} if stages == 2 else {}
    pipeline = diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderKLWan(**SMALL_VIDEO_AUTOENCODER),
        transformer=denoisers[0],
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **second,
    )
    return _with_size(pipeline)


def hunyuan_image(distilled: bool = False) -> Any:
    import diffusers
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    tokenizer, letters = qwen_tokenizer(), ByT5Tokenizer()
    byt5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=len(letters))
    guiding = {} if distilled else {"guider": diffusers.AdaptiveProjectedMixGuidance()}
    pipeline = diffusers.HunyuanImagePipeline(
        tokenizer=tokenizer,
        text_encoder=_qwen2_5_vl(len(tokenizer), layers=3),
        tokenizer_2=letters,
        text_encoder_2=T5EncoderModel(byt5),
        vae=diffusers.AutoencoderKLHunyuanImage(**SMALL_HUNYUAN_AUTOENCODER),
        transformer=diffusers.HunyuanImageTransformer2DModel(
            **SMALL_HUNYUAN_IMAGE, guidance_embeds=distilled, use_meanflow=distilled
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        **guiding,
    )
    pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length = 64, 16
    return _instructed(pipeline)


def hidream() -> Any:
    import diffusers
    from transformers import LlamaConfig, LlamaForCausalLM

    from safegen.models.shipped import shipped_tokenizers

    tokenizer, encoder = t5()
    llama_tokenizer = qwen_tokenizer()
    llama = LlamaConfig(**ENCODER, vocab_size=len(llama_tokenizer))
    pipeline = diffusers.HiDreamImagePipeline(
        **shipped_tokenizers("sdxl"),
        text_encoder=clip("text_encoder", projection_dim=16, max_position_embeddings=128),
        text_encoder_2=clip("text_encoder_2", max_position_embeddings=128),
        tokenizer_3=tokenizer,
        text_encoder_3=encoder,
        tokenizer_4=llama_tokenizer,
        text_encoder_4=LlamaForCausalLM(llama).eval(),
        vae=autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.HiDreamImageTransformer2DModel(**SMALL_HIDREAM),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    return _with_size(pipeline)
