"""Text encoders and autoencoders of real models, shrunk, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Configurations of published models, by repository and part.
CONFIGS = json.loads(
    Path(__file__).parents[1].joinpath("models", "published.json").read_text("utf-8")
)
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
SMALL_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
SMALL_GEMMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
}
# What Qwen3's template makes of these pipelines' messages.
CHAT = (
    "{% for each in messages %}<|im_start|>{{ each.role }}\n{{ each.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["a", "cat", "the", "snow", "house", "and"]


def published(family: str, part: str) -> dict[str, Any]:
    from safegen.models.shipped import FOLDER

    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    config: dict[str, Any] = json.loads((FOLDER / family / part / name).read_text())
    return config


def t5() -> tuple[Any, Any]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    special = ["<pad>", "</s>", "<unk>", "▁"]
    letters = sorted({letter for word in WORDS for letter in word})
    scores = [(token, 0.0) for token in special]
    scores += [(token, -1.0) for token in [*(f"▁{word}" for word in WORDS), *letters]]
    tokenizer = T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)
    config = T5Config(**PIXART["text_encoder"] | SMALL_T5, vocab_size=len(tokenizer))
    return tokenizer, T5EncoderModel(config).eval()


def gemma() -> tuple[Any, Any]:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    # Letters that are rare in the pipeline's instruction, which else would be very long.
    vocabulary = {token: number for number, token in enumerate([*special, *"hkwxz"])}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    config = Gemma2Config(**SANA["text_encoder"] | SMALL_GEMMA, vocab_size=len(tokenizer))
    return tokenizer, Gemma2Model(config).eval()


def autoencoder(**others: Any) -> Any:
    import diffusers

    return diffusers.AutoencoderKL.from_config(published("sdxl", "vae") | AUTOENCODER | others)


def clip(part: str, kind: str = "CLIPTextModelWithProjection", **others: Any) -> Any:
    """A text encoder of SDXL's, shrunk."""
    import transformers

    config = published("sdxl", part) | SHRUNK["sdxl"][part] | others
    return getattr(transformers, kind)(transformers.CLIPTextConfig(**config)).eval()


def qwen_tokenizer() -> Any:
    """Qwen's tokenizer with letters that are rare in the pipelines' instructions."""
    from transformers import Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, "Ġ", *"hkwxz"]
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        model_max_length=512,
        extra_special_tokens=special[1:],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(layers: int) -> Any:
    """A language model whose hidden states are a text's."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    one_head = {"head_dim": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    depth = {"num_hidden_layers": layers, "max_position_embeddings": 1024}
    config = Qwen3Config(**ENCODER | one_head | depth, vocab_size=len(qwen_tokenizer()))
    return Qwen3ForCausalLM(config).eval()
