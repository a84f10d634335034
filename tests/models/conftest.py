"""Every family of real models, built from its published configuration, shrunk, random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Configurations of published models, by repository and part.
CONFIGS = json.loads(Path(__file__).with_name("published.json").read_text("utf-8"))
PIXART = CONFIGS["PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"]
SANA = CONFIGS["Efficient-Large-Model/Sana_1600M_1024px_diffusers"]
SD3 = CONFIGS["stabilityai/stable-diffusion-3.5-medium"]
FLUX = CONFIGS["black-forest-labs/FLUX.1-dev"]
AURA_FLOW = CONFIGS["fal/AuraFlow"]

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
WORDS = ["a", "cat", "the", "snow", "house", "and"]
FAMILIES = ["sd1", "sd2", "sdxl", "pixart", "sana", "sd3", "flux", "chroma", "aura-flow", "lumina2"]


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
    config = T5Config(**PIXART["text_encoder"] | SMALL_T5, vocab_size=len(tokenizer))
    return tokenizer, T5EncoderModel(config).eval()


def _pixart(alpha: bool) -> Any:
    import diffusers

    tokenizer, encoder = _t5()
    # PixArt-alpha's 1024-pixel model has no interpolation scale, and takes additional conditions.
    special = {"use_additional_conditions": True, "interpolation_scale": None} if alpha else {}
    kind = diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(),
        transformer=diffusers.PixArtTransformer2DModel(
            **PIXART["transformer"] | SMALL_PIXART | special
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(**PIXART["scheduler"]),
    )


def _gemma() -> tuple[Any, Any]:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    # Letters that are rare in the pipeline's instruction, which else would be very long.
    vocabulary = {token: number for number, token in enumerate([*special, *"hkwxz"])}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    config = Gemma2Config(**SANA["text_encoder"] | SMALL_GEMMA, vocab_size=len(tokenizer))
    return tokenizer, Gemma2Model(config).eval()


def _sana() -> Any:
    import diffusers

    tokenizer, encoder = _gemma()
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderDC(**SANA["vae"] | SMALL_SANA_AUTOENCODER),
        transformer=diffusers.SanaTransformer2DModel(**SANA["transformer"] | SMALL_SANA),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SANA["scheduler"]),
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
        vae=_autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.SD3Transformer2DModel(**SD3["transformer"] | SMALL_SD3),
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
        vae=_autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.FluxTransformer2DModel(**FLUX["transformer"] | SMALL_FLUX),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    pipeline.default_sample_size = 8
    return pipeline


def _chroma() -> Any:
    import diffusers

    tokenizer, encoder = _t5()
    pipeline = diffusers.ChromaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.ChromaTransformer2DModel(**SMALL_CHROMA),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLUX["scheduler"]),
    )
    pipeline.default_sample_size = 8
    return pipeline


def _aura_flow() -> Any:
    import diffusers

    tokenizer, encoder = _t5()
    transformer = diffusers.AuraFlowTransformer2DModel(**AURA_FLOW["transformer"] | SMALL_AURA_FLOW)
    # A random timestep is so short that the gates of all blocks would be closed.
    transformer.time_step_proj.linear_2.weight.data *= 30
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def _lumina2() -> Any:
    import diffusers

    tokenizer, encoder = _gemma()
    return diffusers.Lumina2Pipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_autoencoder(**FLUX["vae"] | {"latent_channels": 4}),
        transformer=diffusers.Lumina2Transformer2DModel(**SMALL_LUMINA2),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def build(family: str, seed: int = 0, zero_snr: bool = False) -> Any:
    """A pipeline of a family of ``FAMILIES``, or of ``pixart-alpha``."""
    import torch

    torch.manual_seed(seed)
    others = {
        "sana": _sana, "sd3": _sd3, "flux": _flux, "chroma": _chroma, "aura-flow": _aura_flow,
        "lumina2": _lumina2,
    }  # fmt: skip
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
    return {"pixart": PIXART["transformer"], "sana": SANA["transformer"]}


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
