"""Texts as tokens, or as embeddings of tokens, for the CLIP text encoders of a pipeline.

The pipeline's own ``encode_prompt`` runs, with a graph; only what enters its encoders is exchanged.
So hidden states, pooled features and their order are its own. The same tokens enter all CLIP
encoders, and an embedding of a token is those of all encoders, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch

from safegen.errors import SafegenError
from safegen.models.families import family_of
from safegen.models.texts import TextCondition

CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
"""Class names of CLIP text encoders."""


class ClipEncoder(NamedTuple):
    """A CLIP text encoder and its tokenizer."""

    tokenizer: Any
    encoder: Any


def text_encoders(pipeline: Any) -> dict[str, torch.nn.Module]:
    """All text encoders of a pipeline by the names of their parts, in order."""
    parts = sorted(pipeline.components.items())
    return {
        name: part
        for name, part in parts
        if name.startswith("text_encoder") and isinstance(part, torch.nn.Module)
    }


def clip_encoders(pipeline: Any) -> list[ClipEncoder]:
    """CLIP text encoders of a pipeline, in order; there may be others beside them.

    Raises:
        SafegenError: there are none, or they have different tokens.
    """
    encoders = text_encoders(pipeline)
    found = [
        ClipEncoder(getattr(pipeline, name.replace("text_encoder", "tokenizer")), part)
        for name, part in encoders.items()
        if type(part).__name__ in CLIP
    ]
    kind = type(pipeline).__name__
    if not found:
        others = ", ".join(type(part).__name__ for part in encoders.values()) or "none at all"
        raise SafegenError(
            f"the search is over the tokens of a CLIP text encoder, and {kind} has {others}; "
            "attack it with sneakyprompt:p"
        )
    if any(each.tokenizer.get_vocab() != found[0].tokenizer.get_vocab() for each in found[1:]):
        raise SafegenError(
            f"{kind}: its CLIP text encoders have different tokens, and the search is over tokens "
            "of all; attack it with sneakyprompt:p"
        )
    return found


def check_clip_alone(pipeline: Any) -> None:
    """Refuse a pipeline with text encoders through which tokens of CLIP do not pass.

    Raises:
        SafegenError: it has such an encoder, or no CLIP.
    """
    clip_encoders(pipeline)
    others = [type(part).__name__ for part in text_encoders(pipeline).values()]
    others = [kind for kind in others if kind not in CLIP]
    if others:
        raise SafegenError(
            f"{type(pipeline).__name__}: the search is over tokens of CLIP, which its "
            f"{', '.join(others)} does not take; attack it with mma or sneakyprompt:p"
        )


def token_table(pipeline: Any) -> torch.Tensor:
    """Embeddings (V, D) of all tokens, float32."""
    weights = [part.get_input_embeddings().weight for _, part in clip_encoders(pipeline)]
    return torch.cat([weight.detach().float() for weight in weights], dim=1)


@torch.no_grad()
def embed_tokens(pipeline: Any, sequences: torch.Tensor) -> torch.Tensor:
    """Embeddings (N, L, D) of token sequences (N, L), float32."""
    parts = [
        encoder.get_input_embeddings()(padded_as(sequences, tokenizer)).float()
        for tokenizer, encoder in clip_encoders(pipeline)
    ]
    return torch.cat(parts, dim=2)


def encode_tokens(
    pipeline: Any, sequences: torch.Tensor, embeddings: torch.Tensor | None = None
) -> TextCondition:
    """Encode token sequences (N, L) as the pipeline encodes prompts, float32, with a graph.

    Args:
        pipeline: pipeline that ``check_clip_alone`` accepts.
        sequences: tokens with start, end and padding.
        embeddings: embeddings (N, L, D) in place of the tokens' own.
    """
    with tokens_given(pipeline, sequences, embeddings):
        return family_of(pipeline).encode(pipeline, [""] * len(sequences))


@contextmanager
def tokens_given(
    pipeline: Any, sequences: torch.Tensor, embeddings: torch.Tensor | None = None
) -> Iterator[None]:
    """Let the CLIP encoders take sequences, and embeddings, in place of any text in the block."""
    first = 0
    with ExitStack() as hooks:
        for tokenizer, encoder in clip_encoders(pipeline):
            take = partial(_take, padded_as(sequences, tokenizer))
            hooks.callback(encoder.register_forward_pre_hook(take, with_kwargs=True).remove)
            table = encoder.get_input_embeddings()
            width = table.weight.shape[1]
            if embeddings is not None:
                own = embeddings[..., first : first + width].to(table.weight.dtype)
                hooks.callback(table.register_forward_hook(partial(_give, own)).remove)
            first += width
        yield


def padded_as(sequences: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Token sequences (N, L) with a tokenizer's own padding after their ends."""
    ends = sequences == tokenizer.eos_token_id
    after = (ends.cumsum(dim=1) - ends.int()) > 0
    return torch.where(after, tokenizer.pad_token_id, sequences)


def _take(
    tokens: torch.Tensor, _encoder: Any, _args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    texts = ("input_ids", "attention_mask")
    return (tokens,), {name: value for name, value in kwargs.items() if name not in texts}


def _give(embeddings: torch.Tensor, *_: Any) -> torch.Tensor:
    return embeddings
