"""Text conditions that carry no unsafe text: empty, random tokens, benign captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from safegen.errors import SafegenError


@torch.no_grad()
def embed_prompts(pipeline: Any, prompts: Sequence[str], batch: int = 64) -> torch.Tensor:
    """Hidden states of the pipeline's text encoder, float32 (N, L, D).

    Raises:
        SafegenError: the pipeline's denoiser takes more of a text than these (SDXL).
    """
    parts = []
    for start in range(0, len(prompts), batch):
        embedding, *others = pipeline.encode_prompt(
            prompt=list(prompts[start : start + batch]),
            device=pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if any(other is not None for other in others):
            raise SafegenError(
                f"{type(pipeline).__name__}: takes pooled features of a text beside its hidden "
                "states, which edits do not train with; use a Stable Diffusion 1.x or 2.x model"
            )
        parts.append(embedding.float())
    return torch.cat(parts)


@torch.no_grad()
def embed_random_tokens(
    pipeline: Any, count: int, generator: torch.Generator, batch: int = 64
) -> torch.Tensor:
    """Hidden states of ``count`` sequences of random tokens, float32 (N, L, D).

    Lengths are uniform from 1 to the longest that fits, so short and long texts both occur.
    """
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    length = tokenizer.model_max_length
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    ordinary = torch.tensor([i for i in range(len(tokenizer)) if i not in special])
    tokens = torch.full((count, length), tokenizer.pad_token_id)
    tokens[:, 0] = tokenizer.bos_token_id
    for row in range(count):
        words = int(torch.randint(1, length - 1, (1,), generator=generator))
        chosen = torch.randint(len(ordinary), (words,), generator=generator)
        tokens[row, 1 : words + 1] = ordinary[chosen]
        tokens[row, words + 1] = tokenizer.eos_token_id
    parts = [
        encoder(tokens[start : start + batch].to(encoder.device))[0].float()
        for start in range(0, count, batch)
    ]
    return torch.cat(parts)
