"""Tokenizer and CLIP of the lab, trained contrastively on scenes and their captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from safegen.lab.build.scenes import SceneArrays
from safegen.lab.build.training import Progress, Schedule, fast_products, train

CONTEXT_LENGTH = 32
WIDTH = 128
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: list[str], folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary from the captions and save it as a CLIP tokenizer."""
    model = Tokenizer(BPE(unk_token=END, end_of_word_suffix="</w>"))
    model.normalizer = Lowercase()
    model.pre_tokenizer = WhitespaceSplit()
    alphabet = sorted(ByteLevel.alphabet())  # every byte, so that any text can be spelled
    trainer = BpeTrainer(
        vocab_size=1200,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    model.train_from_iterator(captions, trainer)
    learned = json.loads(model.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for token in [*alphabet, *(f"{byte}</w>" for byte in alphabet), START, END]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH, pad_token=END
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Configure 4 + 4 layers of width 128, and images 64 x 64 in patches of 8."""
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**shared, "image_size": 64, "patch_size": 8}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return token ids (B, 32), padded with the end token as Stable Diffusion does."""
    encoded = tokenizer(
        texts, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    tokens: torch.Tensor = encoded.input_ids
    return tokens


def train_clip(
    model: CLIPModel,
    tokens: torch.Tensor,
    scenes: SceneArrays,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
) -> Iterator[Progress]:
    """Train contrastively (CLIP, arXiv 2103.00020) on (scene, caption) pairs."""

    # The encoder is causal and pools at the first end token: padding has no part in the loss.
    tokens = tokens[:, : int((tokens != tokens[0, -1]).sum(dim=1).max()) + 1]

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        indices = torch.randint(len(scenes), (schedule.batch,), generator=generator)
        with fast_products():
            output = model(input_ids=tokens[indices], pixel_values=scenes.pixels(indices))
        logits = output.logits_per_text.float()
        target = torch.arange(schedule.batch)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2

    return train(model, step_loss, schedule, checkpoint, seed)
