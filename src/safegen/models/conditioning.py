"""Text conditions of denoisers, among them empty and random texts without unsafe content."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import parameter
from safegen.models.families import family_of
from safegen.models.texts import POOLED
from safegen.models.texts import TextCondition as TextCondition


@torch.no_grad()
def encode_text(
    pipeline: Any, text: str | list[str], device: torch.device | str | None = None, **options: Any
) -> TextCondition:
    """Encode texts as the pipeline encodes prompts, without the hooks of defenses.

    Args:
        pipeline: a diffusers pipeline with ``encode_prompt``.
        text: one text, or a list of texts.
        device: target device (default: the pipeline's).
        options: options of ``encode_prompt``, such as ``clip_skip``.
    """
    check_takes_text(pipeline)
    own = inspect.signature(type(pipeline).encode_prompt).parameters
    # Texts of further encoders, which are the same unless they are given.
    others = [name for name, each in own.items() if name.startswith("prompt_")]
    encoded = type(pipeline).encode_prompt(
        pipeline,
        prompt=text,
        device=device or pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **{name: None for name in others if own[name].default is inspect.Parameter.empty},
        **options,
    )
    pooled = encoded[2] if len(encoded) > 2 else None
    return TextCondition(encoded[0], added={} if pooled is None else {POOLED: pooled})


def check_takes_text(pipeline: Any) -> None:
    """Refuse a pipeline that encodes no prompts."""
    if not hasattr(type(pipeline), "encode_prompt"):
        raise SafegenError(
            f"{type(pipeline).__name__} has no encode_prompt, so defenses that work with text "
            "cannot be put on it; use a Stable Diffusion pipeline"
        )


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: Sequence[str], batch: int = 64) -> TextCondition:
    """Encode prompts as the pipeline's own call does, float32, for pictures of the model's size.

    An empty prompt becomes the unconditional input of classifier-free guidance: zeros for SDXL
    with ``force_zeros_for_empty_prompt``, no preceding instruction for Sana.

    Raises:
        SafegenError: the pipeline is of no known family, or takes unknown conditions.
    """
    empty = None if all(prompts) else family_of(pipeline).empty(pipeline)
    if empty is None:
        return _encode_all(pipeline, prompts, batch)
    texts = [prompt for prompt in prompts if prompt]
    known = [empty, *([_encode_all(pipeline, texts, batch)] if texts else [])]
    given = torch.tensor([bool(prompt) for prompt in prompts])
    rows = torch.where(given, given.cumsum(0), 0)  # row 0 is the empty prompt
    return TextCondition.cat(known)[rows.to(known[0].hidden.device)]


def embed_prompts(pipeline: Any, prompts: Sequence[str], batch: int = 64) -> torch.Tensor:
    """Hidden states (N, L, D), float32, of prompts for a denoiser that takes nothing else.

    Raises:
        SafegenError: the pipeline's denoiser needs more of a text than these.
    """
    condition = encode_prompts(pipeline, prompts, batch)
    if condition.mask is not None or condition.added:
        raise SafegenError(
            f"{type(pipeline).__name__}: its denoiser takes more of a text than hidden states "
            "(pooled features, a mask or sizes), which this does not work with; use a Stable "
            "Diffusion 1.x or 2.x model"
        )
    return condition.hidden


@torch.no_grad()
def encode_random_tokens(
    pipeline: Any, count: int, generator: torch.Generator, batch: int = 64
) -> TextCondition:
    """Encode ``count`` sequences of random tokens, float32.

    Lengths are uniform from 1 to the longest that fits, so short and long texts both occur. One
    CLIP encoder gets the tokens themselves; several encoders get the text that they spell, since
    each has its own tokenizer.
    """
    tokens = _random_tokens(pipeline, count, generator)
    if not _has_one_clip(pipeline):
        texts = _tokenizer(pipeline).batch_decode(tokens, skip_special_tokens=True)
        return encode_prompts(pipeline, texts, batch)
    encoder = pipeline.text_encoder
    parts = [
        encoder(tokens[start : start + batch].to(encoder.device))[0].float()
        for start in range(0, count, batch)
    ]
    return TextCondition(torch.cat(parts))


def _random_tokens(pipeline: Any, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw token sequences (N, L): any start token, random ordinary tokens, end, padding."""
    tokenizer = _tokenizer(pipeline)
    length = min(tokenizer.model_max_length, parameter(pipeline, "max_sequence_length") or 2**31)
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)  # BERT's texts end in the latter
    end = next(token for token in ends if token is not None)
    special = {tokenizer.bos_token_id, end}
    if not _has_one_clip(pipeline):  # there SD 2.x's padding is an ordinary token too
        special |= set(tokenizer.all_special_ids)
    ordinary = torch.tensor([i for i in range(len(tokenizer)) if i not in special])
    tokens = torch.full((count, length), tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        tokens[:, 0] = tokenizer.bos_token_id
    for row in range(count):
        words = int(torch.randint(1, length - 1, (1,), generator=generator))
        chosen = torch.randint(len(ordinary), (words,), generator=generator)
        tokens[row, 1 : words + 1] = ordinary[chosen]
        tokens[row, words + 1] = end
    return tokens


def _tokenizer(pipeline: Any) -> Any:
    """The tokenizer of the first text encoder, which may be part of a processor."""
    return getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)


def _encode_all(pipeline: Any, prompts: Sequence[str], batch: int) -> TextCondition:
    family, starts = family_of(pipeline), range(0, len(prompts), batch)
    parts = [family.encode(pipeline, list(prompts[start : start + batch])) for start in starts]
    return TextCondition.cat(parts)


def _has_one_clip(pipeline: Any) -> bool:
    """Tell whether texts pass one CLIP encoder, as in Stable Diffusion 1.x and 2.x."""
    one = getattr(pipeline, "text_encoder_2", None) is None
    return one and type(pipeline.text_encoder).__name__ == "CLIPTextModel"
