"""Inputs that a denoiser's class and configuration ask for, of any picture and text size.

Most classes of diffusers name their inputs alike, so a table by name serves them all;
``SPECIAL`` holds what one class has otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

WORDS = 32
"""Text tokens of the base pass; a multiple of what any class pads texts to."""
SIDE = 16
"""Rows and columns of the base pass' latent."""
_TEXT_WIDTHS = (
    "joint_attention_dim", "caption_channels", "text_embed_dim", "cap_feat_dim", "text_dim",
    "encoder_hid_dim", "context_in_dim", "in_text_dim", "text_hidden_dim", "cross_attention_dim",
)  # fmt: skip
"""Fields with the width of hidden states, the one before the others that a class has too."""


@dataclass(frozen=True)
class Probe:
    """A configuration with the sizes of a picture and of its text.

    Attributes:
        config: configuration of a denoiser.
        height, width: size of the latent.
        words: number of text tokens.
    """

    config: Mapping[str, Any]
    height: int
    width: int
    words: int = WORDS

    @classmethod
    def fitting(cls, config: Mapping[str, Any]) -> Probe:
        """Choose the smallest sizes that a configuration allows."""
        patch, longest = config.get("patch_size"), config.get("pos_embed_max_size")
        side = SIDE
        if longest and isinstance(patch, int):
            side = min(side, longest * patch // 2)
        return cls(config, side, side)

    def with_words(self) -> Probe:
        """Take twice as many words."""
        return replace(self, words=2 * self.words)

    def with_picture(self) -> Probe:
        """Take a picture of twice the width."""
        return replace(self, width=2 * self.width)

    def inputs(self, kind: Any) -> dict[str, Any]:
        """Keyword arguments of a denoiser's call, all zeros or ones."""
        special = SPECIAL[kind.__name__](self) if kind.__name__ in SPECIAL else {}
        found = {}
        for name in inspect.signature(kind.forward).parameters:
            given = special[name] if name in special else _make(name, self)
            if given is not None:
                found[name] = given
        return found

    def network(self, kind: Any) -> Any:
        """Build a denoiser of this configuration, which takes this number of words."""
        # Values in this list of fields would give way to the defaults.
        fields = {
            name: value for name, value in self.config.items() if name != "_use_default_values"
        }
        words = dict.fromkeys(FIXED_TEXTS.get(kind.__name__, ()), self.words)
        return kind.from_config({**fields, **words}).eval()

    def zeros(self, *shape: int) -> torch.Tensor:
        """Zeros (1, *shape)."""
        return torch.zeros(1, *shape)

    def first(self, *names: str, otherwise: Any = None) -> Any:
        """Value of the first of these fields that the configuration has."""
        return next((self.config[name] for name in names if self.config.get(name)), otherwise)

    @property
    def text(self) -> torch.Tensor:
        """Hidden states (1, L, D)."""
        width = self.first(*_TEXT_WIDTHS)
        return self.zeros(self.words, max(width) if isinstance(width, list | tuple) else width)

    @property
    def latent(self) -> torch.Tensor:
        """Latent (1, C, H, W)."""
        return self.zeros(self.first("in_channels", "in_visual_dim"), self.height, self.width)

    @property
    def frame(self) -> torch.Tensor:
        """Latent of a video of one frame (1, C, 1, H, W)."""
        return self.latent.unsqueeze(2)

    @property
    def tokens(self) -> torch.Tensor:
        """Packed latent (1, H * W, C)."""
        return self.zeros(self.height * self.width, self.config["in_channels"])

    @property
    def axes(self) -> int:
        """Number of rotary axes."""
        return len(self.config.get("axes_dims_rope") or (0, 0, 0))


def _added(probe: Probe) -> dict[str, torch.Tensor]:
    """SDXL's pooled features and sizes, PixArt-alpha's sizes."""
    if probe.config.get("addition_embed_type") != "text_time":
        return {"resolution": probe.zeros(2), "aspect_ratio": probe.zeros(1)}
    config = probe.config
    sizes = 6 * config["addition_time_embed_dim"]
    pooled = config["projection_class_embeddings_input_dim"] - sizes
    return {"text_embeds": probe.zeros(pooled), "time_ids": probe.zeros(6)}


def _mask(probe: Probe) -> torch.Tensor:
    return torch.ones(1, probe.words, dtype=torch.bool)


_Made = Callable[[Probe], Any]
_INPUTS: dict[str, _Made] = {
    "sample": lambda probe: probe.latent,
    "hidden_states": lambda probe: probe.latent,
    "timestep": lambda _: torch.ones(1),
    "timesteps": lambda _: torch.ones(1),
    "encoder_hidden_states": lambda probe: probe.text,
    "encoder_attention_mask": _mask,
    "encoder_hidden_states_mask": _mask,
    "encoder_mask": _mask,
    "pooled_projections": lambda probe: probe.zeros(
        probe.first("pooled_projection_dim", "in_text_dim2", otherwise=1)
    ),
    "guidance": lambda probe: torch.ones(1) if probe.config.get("guidance_embeds") else None,
    "txt_ids": lambda probe: torch.zeros(probe.words, probe.axes),
    "img_ids": lambda probe: torch.zeros(probe.height * probe.width, probe.axes),
    "img_shapes": lambda probe: [[(1, probe.height, probe.width)]],
    "original_size": lambda probe: probe.zeros(2),
    "target_size": lambda probe: probe.zeros(2),
    "crop_coords": lambda probe: probe.zeros(2),
    "added_cond_kwargs": _added,
}  # fmt: skip


def _make(name: str, probe: Probe) -> Any:
    return _INPUTS[name](probe) if name in _INPUTS else None


def _packed(probe: Probe) -> dict[str, Any]:
    return {"hidden_states": probe.tokens}


def _video(probe: Probe) -> dict[str, Any]:
    return {"hidden_states": probe.frame}


def _unet(probe: Probe) -> dict[str, Any]:
    # An embedded projection of the text widens it before the cross-attention.
    return {} if probe.config.get("addition_embed_type") else {"added_cond_kwargs": None}


def _fibo(probe: Probe) -> dict[str, Any]:
    config = probe.config
    layers = config["num_layers"] + config["num_single_layers"]
    states = [probe.zeros(probe.words, config["text_encoder_dim"])] * layers
    return {"hidden_states": probe.tokens, "text_encoder_layers": states}


def _hidream(probe: Probe) -> dict[str, Any]:
    t5, llama = probe.config["caption_channels"]
    layers = max(probe.config["llama_layers"]) + 1
    return {
        "timesteps": torch.ones(1),
        "encoder_hidden_states_t5": probe.zeros(probe.words, t5),
        "encoder_hidden_states_llama3": torch.zeros(layers, 1, probe.words, llama),
        "pooled_embeds": probe.zeros(probe.config["text_emb_dim"]),
        "img_ids": None,
    }


def _hunyuan_dit(probe: Probe) -> dict[str, Any]:
    config = probe.config
    grid = (probe.height // config["patch_size"]) * (probe.width // config["patch_size"])
    rotary = torch.zeros(grid, config["attention_head_dim"])
    return {
        "encoder_hidden_states": probe.zeros(probe.words, config["cross_attention_dim"]),
        "text_embedding_mask": _mask(probe),
        "encoder_hidden_states_t5": probe.zeros(probe.words, config["cross_attention_dim_t5"]),
        "text_embedding_mask_t5": _mask(probe),
        "image_meta_size": torch.zeros(6),
        "style": torch.zeros(1, dtype=torch.long),
        "image_rotary_emb": (rotary, rotary),
    }


def _kandinsky5(probe: Probe) -> dict[str, Any]:
    frames, rows, columns = probe.config["patch_size"]
    grid = [torch.arange(n) for n in (1, probe.height // rows, probe.width // columns)]
    channels = probe.config["in_visual_dim"]
    if probe.config.get("visual_cond"):
        channels = 2 * channels + 1
    return {
        "hidden_states": probe.zeros(frames, probe.height, probe.width, channels),
        "visual_rope_pos": grid,
        "text_rope_pos": torch.arange(probe.words),
    }


def _cascade(probe: Probe) -> dict[str, Any]:
    config = probe.config
    sequence = config.get("clip_text_in_channels")
    return {
        "timestep_ratio": torch.ones(1),
        "clip_text_pooled": probe.zeros(1, config["clip_text_pooled_in_channels"]),
        "clip_text": probe.zeros(probe.words, sequence) if sequence else None,
        "clip_img": probe.zeros(1, config["clip_image_in_channels"])
        if config.get("clip_image_in_channels")
        else None,
    }


def _omnigen(probe: Probe) -> dict[str, Any]:
    size = probe.config["patch_size"]
    length = probe.words + 1 + (probe.height // size) * (probe.width // size)
    return {
        "input_ids": torch.zeros(1, probe.words, dtype=torch.long),
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": torch.ones(1, length, length),
        "position_ids": torch.arange(length).unsqueeze(0),
    }


def _zimage(probe: Probe) -> dict[str, Any]:
    return {
        "x": [probe.latent.squeeze(0).unsqueeze(1)],
        "t": torch.ones(1),
        "cap_feats": [probe.text.squeeze(0)],
        "patch_size": probe.config["all_patch_size"][0],
        "f_patch_size": probe.config["all_f_patch_size"][0],
    }


def _lumina_next(probe: Probe) -> dict[str, Any]:
    head = probe.config["hidden_size"] // probe.config["num_attention_heads"]
    angles = torch.zeros(384, 384, head // 2, dtype=torch.complex64)
    return {"image_rotary_emb": angles, "cross_attention_kwargs": {}}


def _krea(probe: Probe) -> dict[str, Any]:
    config = probe.config
    length = probe.words + probe.height * probe.width
    states = probe.zeros(probe.words, config["num_text_layers"], config["text_hidden_dim"])
    return {
        "hidden_states": probe.tokens,
        "encoder_hidden_states": states,
        "position_ids": torch.zeros(length, 3),
    }


def _glm(probe: Probe) -> dict[str, Any]:
    """Tokens that a language model drew before, one a patch of the picture."""
    size = probe.config["patch_size"]
    tokens = (probe.height // size) * (probe.width // size)
    return {
        "prior_token_id": torch.zeros(1, tokens, dtype=torch.long),
        "prior_token_drop": torch.zeros(1, tokens, dtype=torch.bool),
    }


def _ideogram(probe: Probe) -> dict[str, Any]:
    """One sequence of text and picture, each with both widths of channels."""
    length = probe.words + probe.height * probe.width
    same = torch.zeros(1, length, dtype=torch.long)
    return {
        "hidden_states": probe.zeros(length, probe.config["in_channels"]),
        "encoder_hidden_states": probe.zeros(length, probe.config["llm_features_dim"]),
        "position_ids": torch.zeros(1, length, 3, dtype=torch.long),
        "segment_ids": same,
        "indicator": same,
    }


def _ernie(probe: Probe) -> dict[str, Any]:
    return {
        "text_bth": probe.zeros(probe.words, probe.config["text_in_dim"]),
        "text_lens": torch.full((1,), probe.words),
    }


SPECIAL: dict[str, Callable[[Probe], dict[str, Any]]] = {
    "UNet2DConditionModel": _unet,
    "FluxTransformer2DModel": _packed,
    "ChromaTransformer2DModel": _packed,
    "BriaTransformer2DModel": _packed,
    "BriaFiboTransformer2DModel": _fibo,
    "OvisImageTransformer2DModel": _packed,
    "LongCatImageTransformer2DModel": _packed,
    "Flux2Transformer2DModel": _packed,
    "Flux3Transformer2DModel": _packed,
    "QwenImageTransformer2DModel": _packed,
    "HiDreamImageTransformer2DModel": _hidream,
    "HunyuanDiT2DModel": _hunyuan_dit,
    "HunyuanVideoTransformer3DModel": _video,
    "WanTransformer3DModel": _video,
    "Kandinsky5Transformer3DModel": _kandinsky5,
    "StableCascadeUNet": _cascade,
    "OmniGenTransformer2DModel": _omnigen,
    "ZImageTransformer2DModel": _zimage,
    "LuminaNextDiT2DModel": _lumina_next,
    "Krea2Transformer2DModel": _krea,
    "ErnieImageTransformer2DModel": _ernie,
    "GlmImageTransformer2DModel": _glm,
    "Ideogram4Transformer2DModel": _ideogram,
    "NucleusMoEImageTransformer2DModel": _packed,
}
"""Inputs by class that differ from those of the table by name; None leaves an input out."""
FIXED_TEXTS: Mapping[str, tuple[str, ...]] = {"HunyuanDiT2DModel": ("text_len", "text_len_t5")}
"""Fields that fix a class' number of words."""
