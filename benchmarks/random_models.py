"""Pipelines of published denoisers with random weights, and text encoders of one layer.

What an edit's step takes depends on the denoiser alone: encoders are asked before the first step,
and their widths are the published ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from published import MODELS
from safegen.editing.latents import TripletLatents
from safegen.models.anatomy import fingerprint
from safegen.models.families import family_of
from safegen.models.shipped import FOLDER, shipped_tokenizers

TINY: Mapping[str, Mapping[str, Any]] = {
    "sd1": {
        "sample_size": 16,  # four levels down, attention still has several tokens
        "block_out_channels": [16, 16, 32, 32],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
    },
    "sdxl": {
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
    "sd3.5-medium": {
        "sample_size": 8,
        "num_layers": 3,
        "dual_attention_layers": [0],
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "caption_projection_dim": 16,
        "joint_attention_dim": 48,
        "pooled_projection_dim": 16 + 24,
        "pos_embed_max_size": 8,
    },
    "flux": {
        "num_layers": 2,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": [4, 4, 8],
        "joint_attention_dim": 16,
        "pooled_projection_dim": 16,
    },
}
"""Changes of the published configurations that make them tiny."""
SMALL_AUTOENCODER = {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build(model: str, dtype: torch.dtype, device: torch.device, tiny: bool = False) -> Any:
    """Build a pipeline of one of ``MODELS``; tiny ones are the same on every device."""
    torch.manual_seed(0)
    with _made(dtype, torch.device("cpu") if tiny else device):
        pipeline = BUILDERS[model](_denoiser(model, tiny), tiny)
    if tiny:
        pipeline.default_sample_size = 8
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def random_triplets(pipeline: Any, count: int = 2) -> TripletLatents:
    """Draw latents of as many triplets as a step takes, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, count, *family_of(pipeline).latent_shape(pipeline))
    unsafe, censored, benign = torch.randn(shape, generator=generator).unbind()
    return TripletLatents(unsafe, censored, benign, (), fingerprint(pipeline.vae))


@contextmanager
def _made(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Make weights of a type on a device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _denoiser(model: str, tiny: bool) -> Any:
    import diffusers

    published = MODELS[model]
    config = published.config() | (dict(TINY[model]) if tiny else {})
    return getattr(diffusers, published.kind).from_config(config).eval()


def _autoencoder(tiny: bool, channels: int = 4) -> Any:
    import diffusers

    config = json.loads((FOLDER / "sdxl" / "vae" / "config.json").read_text())
    small = SMALL_AUTOENCODER if tiny else {}
    sixteen = {"latent_channels": channels, "shift_factor": 0.0} if channels != 4 else {}
    return diffusers.AutoencoderKL.from_config(config | small | sixteen).eval()


def _clip(part: str, width: int, pooled: bool = True) -> Any:
    """Build a text encoder of SDXL's with one layer."""
    import transformers

    config = json.loads((FOLDER / "sdxl" / part / "config.json").read_text())
    sizes = {
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": 8,
        "num_hidden_layers": 2,  # the pipelines take the last but one
    }
    kind = transformers.CLIPTextModelWithProjection if pooled else transformers.CLIPTextModel
    return kind(transformers.CLIPTextConfig(**config | sizes)).eval()


def _t5(width: int) -> tuple[Any, Any]:
    """Build a tokenizer of letters, and an encoder with one layer."""
    import transformers

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", 0.0)]
    vocabulary += [(letter, -1.0) for letter in LETTERS]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    config = transformers.T5Config(
        d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=len(tokenizer)
    )
    return tokenizer, transformers.T5EncoderModel(config).eval()


def _sd1(unet: Any, tiny: bool) -> Any:
    import diffusers

    return diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=_autoencoder(tiny),
        text_encoder=_clip("text_encoder", unet.config.cross_attention_dim, pooled=False),
        **shipped_tokenizers("sd1"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(FOLDER / "sd1" / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(unet: Any, tiny: bool) -> Any:
    import diffusers

    config = unet.config
    sizes = 6 * config.addition_time_embed_dim
    pooled = config.projection_class_embeddings_input_dim - sizes
    return diffusers.StableDiffusionXLPipeline(
        unet=unet,
        vae=_autoencoder(tiny),
        text_encoder=_clip("text_encoder", config.cross_attention_dim - pooled),
        text_encoder_2=_clip("text_encoder_2", pooled),
        **shipped_tokenizers("sdxl"),
        scheduler=diffusers.EulerDiscreteScheduler.from_pretrained(FOLDER / "sdxl" / "scheduler"),
    )


def _sd3(transformer: Any, tiny: bool) -> Any:
    """Stable Diffusion 3.5 without T5, whose hidden states are zeros then."""
    import diffusers

    first = 16 if tiny else 768
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_autoencoder(tiny, channels=16),
        text_encoder=_clip("text_encoder", first),
        text_encoder_2=_clip("text_encoder_2", transformer.config.pooled_projection_dim - first),
        **shipped_tokenizers("sdxl"),
        text_encoder_3=None,
        tokenizer_3=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux(transformer: Any, tiny: bool) -> Any:
    import diffusers

    config = transformer.config
    tokenizer, encoder = _t5(config.joint_attention_dim)
    return diffusers.FluxPipeline(
        transformer=transformer,
        vae=_autoencoder(tiny, channels=16),
        text_encoder=_clip("text_encoder", config.pooled_projection_dim, pooled=False),
        tokenizer=shipped_tokenizers("sdxl")["tokenizer"],
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


BUILDERS: Mapping[str, Callable[[Any, bool], Any]] = {
    "sd1": _sd1,
    "sdxl": _sdxl,
    "sd3.5-medium": _sd3,
    "flux": _flux,
}
"""Builders of the models' pipelines around a denoiser."""
