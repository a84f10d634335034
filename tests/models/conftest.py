"""Every family of real models, built from its published configuration, shrunk, random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# PixArt-alpha/PixArt-Sigma-XL-2-1024-MS; PixArt-alpha's 1024-pixel model has no interpolation
# scale, and takes additional conditions.
PIXART = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "in_channels": 4,
    "interpolation_scale": 2,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 128,
    "upcast_attention": False,
    "use_additional_conditions": False,
}
PIXART_SCHEDULER = {
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
}
T5_XXL = {
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "dense_act_fn": "gelu_new",
    "feed_forward_proj": "gated-gelu",
    "num_heads": 64,
    "num_layers": 24,
}
# Efficient-Large-Model/Sana_1600M_1024px_diffusers
SANA = {
    "attention_bias": False,
    "attention_head_dim": 32,
    "caption_channels": 2304,
    "cross_attention_dim": 2240,
    "cross_attention_head_dim": 112,
    "dropout": 0.0,
    "in_channels": 32,
    "mlp_ratio": 2.5,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "num_attention_heads": 70,
    "num_cross_attention_heads": 20,
    "num_layers": 20,
    "out_channels": 32,
    "patch_size": 1,
    "sample_size": 32,
}
SANA_AUTOENCODER = {
    "attention_head_dim": 32,
    "decoder_act_fns": "silu",
    "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "decoder_norm_types": "rms_norm",
    "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "downsample_block_type": "Conv",
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "in_channels": 3,
    "latent_channels": 32,
    "scaling_factor": 0.41407,
    "upsample_block_type": "interpolate",
}
SANA_SCHEDULER = {
    "algorithm_type": "dpmsolver++",
    "flow_shift": 3.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "use_flow_sigmas": True,
}
# stabilityai/stable-diffusion-3.5-medium
SD3 = {
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "dual_attention_layers": list(range(13)),
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "sample_size": 128,
}
# black-forest-labs/FLUX.1-dev
FLUX = {
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}
FLUX_SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
SHIFTED_AUTOENCODER = {
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
# fal/AuraFlow
AURA_FLOW = {
    "attention_head_dim": 256,
    "caption_projection_dim": 3072,
    "in_channels": 4,
    "joint_attention_dim": 2048,
    "num_attention_heads": 12,
    "num_mmdit_layers": 4,
    "num_single_dit_layers": 32,
    "out_channels": 4,
    "patch_size": 2,
    "pos_embed_max_size": 1024,
    "sample_size": 64,
}
GEMMA_2B = {
    "head_dim": 256,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
}

ENCODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
FOUR_LEVELS = {
    "sample_size": 16,
    "block_out_channels": [16, 16, 32, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
}
SHRUNK: dict[str, dict[str, Any]] = {
    "sd1": {"unet": FOUR_LEVELS | {"attention_head_dim": 2}, "text_encoder": ENCODER},
    "sd2": {
        "unet": FOUR_LEVELS | {"attention_head_dim": [2, 2, 4, 4]},
        "text_encoder": ENCODER,
    },
    "sdxl": {
        "unet": {
            "sample_size": 8,
            "block_out_channels": [16, 32, 32],
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "attention_head_dim": [1, 2, 4],
            "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 16 + 24,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 24,
        },
        "text_encoder": ENCODER,
        "text_encoder_2": ENCODER | {"hidden_size": 24, "projection_dim": 24},
    },
}
AUTOENCODER = {
    "block_out_channels": [8] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}
SMALL_PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "caption_channels": 16,
}
SMALL_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
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
SMALL_GEMMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
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
WORDS = ["a", "cat", "the", "snow", "house", "and"]
FAMILIES = ["sd1", "sd2", "sdxl", "pixart", "sana", "sd3", "flux", "aura-flow"]


def _published(family: str, part: str) -> dict[str, Any]:
    from safegen.models.shipped import FOLDER

    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    config: dict[str, Any] = json.loads((FOLDER / family / part / name).read_text())
    return config


def _stable_diffusion(family: str, zero_snr: bool) -> Any:
    import diffusers
    import transformers

    from safegen.models.shipped import FOLDER, shipped_tokenizers

    parts: dict[str, Any] = {}
    for part, small in SHRUNK[family].items():
        config = _published(family, part) | small
        if part == "unet":
            parts[part] = diffusers.UNet2DConditionModel.from_config(config)
        else:
            kind = getattr(transformers, config["architectures"][0])
            parts[part] = kind(kind.config_class(**config)).eval()
    vae = diffusers.AutoencoderKL.from_config(_published(family, "vae") | AUTOENCODER)
    schedule = _published(family, "scheduler")
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


def _t5() -> tuple[Any, Any]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    special = ["<pad>", "</s>", "<unk>", "▁"]
    letters = sorted({letter for word in WORDS for letter in word})
    scores = [(token, 0.0) for token in special]
    scores += [(token, -1.0) for token in [*(f"▁{word}" for word in WORDS), *letters]]
    tokenizer = T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)
    config = T5Config(**T5_XXL | SMALL_T5, vocab_size=len(tokenizer))
    return tokenizer, T5EncoderModel(config).eval()


def _pixart(alpha: bool) -> Any:
    import diffusers

    tokenizer, encoder = _t5()
    special = {"use_additional_conditions": True, "interpolation_scale": None} if alpha else {}
    kind = diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(),
        transformer=diffusers.PixArtTransformer2DModel(**PIXART | SMALL_PIXART | special),
        scheduler=diffusers.DPMSolverMultistepScheduler(**PIXART_SCHEDULER),
    )


def _gemma() -> tuple[Any, Any]:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    # Letters that are rare in the pipeline's instruction, which else would be very long.
    vocabulary = {token: number for number, token in enumerate([*special, *"hkwxz"])}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    config = Gemma2Config(**GEMMA_2B | SMALL_GEMMA, vocab_size=len(tokenizer))
    return tokenizer, Gemma2Model(config).eval()


def _sana() -> Any:
    import diffusers

    tokenizer, encoder = _gemma()
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderDC(**SANA_AUTOENCODER | SMALL_SANA_AUTOENCODER),
        transformer=diffusers.SanaTransformer2DModel(**SANA | SMALL_SANA),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SANA_SCHEDULER),
    )


def _autoencoder(**others: Any) -> Any:
    import diffusers

    return diffusers.AutoencoderKL.from_config(_published("sdxl", "vae") | AUTOENCODER | others)


def _clip(part: str, kind: str = "CLIPTextModelWithProjection", **others: Any) -> Any:
    """A text encoder of SDXL's, shrunk."""
    import transformers

    config = _published("sdxl", part) | SHRUNK["sdxl"][part] | others
    return getattr(transformers, kind)(transformers.CLIPTextConfig(**config)).eval()


def _sd3() -> Any:
    import diffusers

    from safegen.models.shipped import shipped_tokenizers

    return diffusers.StableDiffusion3Pipeline(
        **shipped_tokenizers("sdxl"),
        text_encoder=_clip("text_encoder", projection_dim=16),
        text_encoder_2=_clip("text_encoder_2"),
        tokenizer_3=None,
        text_encoder_3=None,
        vae=_autoencoder(**SHIFTED_AUTOENCODER | {"latent_channels": 4}),
        transformer=diffusers.SD3Transformer2DModel(**SD3 | SMALL_SD3),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux() -> Any:
    import diffusers

    from safegen.models.shipped import shipped_tokenizers

    tokenizer, encoder = _t5()
    pipeline = diffusers.FluxPipeline(
        tokenizer=shipped_tokenizers("sdxl")["tokenizer"],
        text_encoder=_clip("text_encoder", kind="CLIPTextModel"),
        tokenizer_2=tokenizer,
        text_encoder_2=encoder,
        vae=_autoencoder(**SHIFTED_AUTOENCODER | {"latent_channels": 4}),
        transformer=diffusers.FluxTransformer2DModel(**FLUX | SMALL_FLUX),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX_SCHEDULER),
    )
    pipeline.default_sample_size = 8
    return pipeline


def _aura_flow() -> Any:
    import diffusers

    tokenizer, encoder = _t5()
    transformer = diffusers.AuraFlowTransformer2DModel(**AURA_FLOW | SMALL_AURA_FLOW)
    # A random timestep is so short that the gates of all blocks would be closed.
    transformer.time_step_proj.linear_2.weight.data *= 30
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def build(family: str, seed: int = 0, zero_snr: bool = False) -> Any:
    """A pipeline of a family of ``FAMILIES``, or of ``pixart-alpha``."""
    import torch

    torch.manual_seed(seed)
    others = {"sana": _sana, "sd3": _sd3, "flux": _flux, "aura-flow": _aura_flow}
    if family in SHRUNK:
        pipeline = _stable_diffusion(family, zero_snr)
    elif family in others:
        pipeline = others[family]()
    else:
        pipeline = _pixart(alpha=family == "pixart-alpha")
    for part in ("unet", "transformer", "vae"):
        if hasattr(pipeline, part):
            getattr(pipeline, part).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def build_family() -> Callable[..., Any]:
    """The builder of families."""
    return build


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, Any]]:
    """Published configurations of the transformers, in full size."""
    return {"pixart": PIXART, "sana": SANA}


@pytest.fixture(scope="module", autouse=True)
def few_texts() -> Iterator[None]:
    """Edits with fewer random texts than usual, which take most of the time of small models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safegen.editing.conditions.RANDOM_TEXTS", 24)
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(family: str) -> Any:
    """The family's pipeline; tests leave it as it was."""
    return build(family)
