"""White-box text attacks: prompts with open slots, and gradients through the denoiser.

Gradients reach a text through its token embeddings: other embeddings replace the tokens' own, and
the text encoders run as for any prompt. They come from the plain denoiser, so weight edits act,
while defenses that guide sampling or filter pictures act only when the defended pipeline's own
call draws the prompt found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from safegen.attacks import Finding, Task
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import TextCondition
from safegen.models.prediction import add_noise, signal_and_noise
from safegen.models.sampling import Sample
from safegen.models.tokens import (
    clip_encoders,
    embed_tokens,
    encode_tokens,
    text_encoders,
    token_table,
)

GAMMA = 5.0
"""Signal-to-noise bound of min-SNR (arXiv 2303.09556), as in its paper."""


class Vocabulary:
    """Tokens of a pipeline as text, numbers and embeddings.

    Attributes:
        pipeline: pipeline with CLIP text encoders.
        tokenizer: tokenizer of the first of them.
        allowed: numbers (V,) of the tokens that an attack may use: all but the special ones.
        table: embeddings (V, D) of these tokens, of all encoders side by side, float32.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.tokenizer: Any = clip_encoders(pipeline)[0].tokenizer
        special = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        self.allowed = torch.tensor([i for i in range(len(self.tokenizer)) if i not in special])
        table = token_table(pipeline)
        self.table = table[self.allowed.to(table.device)]

    def tokens(self, text: str) -> list[int]:
        """Tokenize a text, without start and end tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def text(self, sequence: torch.Tensor) -> str | None:
        """Return the text with exactly these tokens (L,); None without one."""
        inner = sequence[1:].tolist()
        end = inner.index(self.tokenizer.eos_token_id)
        text: str = self.tokenizer.decode(inner[:end]).strip()
        again = self.tokenizer(text, padding="max_length", truncation=True).input_ids
        return text if again == sequence.tolist() else None

    def nearest(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Find the rows of the table (...,) with the highest cosine to embeddings (..., D)."""
        directions = torch.nn.functional.normalize(self.table, dim=1)
        return (embeddings @ directions.T).argmax(dim=-1)


@dataclass(frozen=True)
class OpenPrompts:
    """N prompts with open slots, which an attack fills.

    Attributes:
        pipeline: pipeline with CLIP text encoders.
        sequences: tokens (N, L) with start, end and padding; those in open slots are ignored.
        slots: index of the filling (of K) at each position (N, L); -1 where none is open.
    """

    pipeline: Any
    sequences: torch.Tensor
    slots: torch.Tensor

    def __getitem__(self, rows: list[int]) -> OpenPrompts:
        """Select some of the prompts."""
        return OpenPrompts(self.pipeline, self.sequences[rows], self.slots[rows])

    def filled(self, tokens: torch.Tensor) -> torch.Tensor:
        """Fill the open slots with tokens (N, K); returns sequences (N, L)."""
        chosen = tokens.gather(1, self._slots)
        return torch.where(self.slots >= 0, chosen, self.sequences)

    def condition(self, embeddings: torch.Tensor) -> TextCondition:
        """Conditions of the N texts, float32, with embeddings (N, K, D) in the open slots."""
        return encode_tokens(self.pipeline, self.sequences, self.mixed(embeddings))

    def mixed(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, L, D) of all tokens, with embeddings (N, K, D) in the open slots."""
        width = embeddings.shape[2]
        chosen = embeddings.gather(1, self._slots[..., None].expand(-1, -1, width))
        return torch.where((self.slots >= 0)[..., None], chosen, self._embedded)

    @cached_property
    def _slots(self) -> torch.Tensor:
        return self.slots.clamp(min=0)

    @cached_property
    def _embedded(self) -> torch.Tensor:
        return embed_tokens(self.pipeline, self.sequences)


def open_prompts(pipeline: Any, layouts: Sequence[Sequence[int]]) -> OpenPrompts:
    """Make prompts from layouts: between start and end, token numbers or ``~k`` for open slot k.
    Tokens beyond the tokenizer's length are cut, as from any text."""
    tokenizer, encoder = clip_encoders(pipeline)[0]
    length = tokenizer.model_max_length
    sequences = torch.full((len(layouts), length), tokenizer.pad_token_id)
    slots = torch.full_like(sequences, -1)
    sequences[:, 0] = tokenizer.bos_token_id
    for row, layout in enumerate(layouts):
        inner = torch.tensor(list(layout)[: length - 2], dtype=torch.long)
        end = len(inner) + 1
        sequences[row, 1:end] = inner.clamp(min=0)
        slots[row, 1:end] = torch.where(inner < 0, -1 - inner, -1)
        sequences[row, end] = tokenizer.eos_token_id
    return OpenPrompts(pipeline, sequences.to(encoder.device), slots.to(encoder.device))


def weighted_error(
    seen: torch.Tensor, wanted: torch.Tensor, a: torch.Tensor, s: torch.Tensor
) -> torch.Tensor:
    """min(a^2 / s^2, gamma) |seen - wanted|^2 of clean latents (B, C, H, W), for each (B,).

    Below a signal-to-noise ratio of gamma this is the squared error of the noise, as in the papers;
    above, a positive multiple of it.
    """
    weight = (a / s).square().clamp(max=GAMMA)
    return weight * (seen - wanted).square().flatten(1).mean(dim=1)


def denoising_loss(
    target: Target,
    pictures: torch.Tensor,
    noise: torch.Tensor,
    times: torch.Tensor,
    condition: TextCondition,
) -> torch.Tensor:
    """Denoising loss of pictures under texts (B,), with a graph.

    Args:
        target: the defended model.
        pictures: clean latents (B, C, H, W).
        noise: noise of the same shape.
        times: timesteps (B,).
        condition: conditions of B texts.
    """
    a, s = signal_and_noise(target.pipeline.scheduler, times)
    seen = target.clean(add_noise(pictures, noise, a, s), times, condition)
    return weighted_error(seen, pictures, a, s)


@contextmanager
def frozen(pipeline: Any) -> Iterator[None]:
    """Freeze the weights of denoiser and text encoders in the block."""
    modules = (denoiser_of(pipeline), *text_encoders(pipeline).values())
    wanted = {
        parameter: parameter.requires_grad
        for module in modules
        for parameter in module.parameters()
    }
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, before in wanted.items():
            parameter.requires_grad_(before)


class TokenSearch(Protocol):
    """Token search for some tasks' prompts."""

    def advance(self, rows: list[int], number: int) -> None:
        """Run round ``number``, from 0, for some tasks."""

    def sequences(self, rows: list[int]) -> torch.Tensor:
        """Current prompts (R, L) of some tasks, to be drawn."""

    def passes(self, rounds: int) -> int:
        """Passes of ``rounds`` rounds, as in ``Finding.passes``."""


def search_tokens(
    target: Target, tasks: Sequence[Task], tokens: TokenSearch, rounds: int
) -> list[Finding]:
    """Draw a search's first prompts, and those after each round until it succeeds."""
    vocabulary = Vocabulary(target.pipeline)

    def draw(rows: list[int], number: int) -> list[Drawn]:
        if number:
            with frozen(target.pipeline):
                tokens.advance(rows, number - 1)
        sequences, passes = tokens.sequences(rows), tokens.passes(number)
        texts = [vocabulary.text(each) for each in sequences]
        samples = draw_sequences(target, [tasks[i] for i in rows], sequences, texts)
        return [
            Drawn(sample, text, passes, {"rounds": number, "tokens": sequence})
            for sample, text, sequence in zip(samples, texts, sequences.tolist(), strict=True)
        ]

    return search(target, tasks, draw, rounds + 1)


def draw_sequences(
    target: Target, tasks: Sequence[Task], sequences: torch.Tensor, texts: Sequence[str | None]
) -> list[Sample]:
    """Draw token sequences (N, L) with the defended model, as text where they have one."""
    spelled = [i for i, text in enumerate(texts) if text is not None]
    others = [i for i, text in enumerate(texts) if text is None]
    samples: dict[int, Sample] = {}
    if spelled:
        known = [text for text in texts if text is not None]
        samples.update(zip(spelled, target.draw([tasks[i] for i in spelled], known), strict=True))
    if others:
        with torch.no_grad():
            condition = encode_tokens(target.pipeline, sequences[others])
        drawn = target.draw([tasks[i] for i in others], condition=condition)
        samples.update(zip(others, drawn, strict=True))
    return [samples[i] for i in range(len(tasks))]
