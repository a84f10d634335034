"""Text conditions of an edit; none of them is unsafe text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from safegen.editing.settings import Mixture
from safegen.models.conditioning import TextCondition, encode_prompts, encode_random_tokens

RANDOM_TEXTS = 256
ADVERSARIES = 24
ADVERSARY_RATE = 0.02
"""Step length, as a share of a token embedding's norm."""


class Conditions:
    """Table of N texts: the empty prompt, random texts, benign captions and adversaries.

    Adversaries start as random texts; training moves them to where they best restore the unsafe
    pictures: textual inversion (arXiv 2208.01618) in the inner loop, from pictures alone,
    without unsafe text.
    """

    def __init__(self, pipeline: Any, captions: tuple[str, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        empty = encode_prompts(pipeline, [""])
        random = encode_random_tokens(pipeline, RANDOM_TEXTS, generator)
        unique = sorted(set(captions))
        captioned = [encode_prompts(pipeline, unique)] if unique else []
        parts = [empty, random, *captioned, random[:ADVERSARIES]]
        self.table = TextCondition.cat([part.to("cpu") for part in parts])
        first = 1 + RANDOM_TEXTS
        self.caption_rows = torch.tensor(
            [first + unique.index(caption) for caption in captions], dtype=torch.long
        )
        self._lengths = {
            name: value.norm(dim=-1, keepdim=True) for name, value in self.adversaries.items()
        }

    @property
    def adversaries(self) -> dict[str, torch.Tensor]:
        """Embeddings of the adversaries by name, (K, L, D) or (K, P): views of the table."""
        return self.table[-ADVERSARIES:].embeddings

    def draw(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Draw table rows for benign pictures (B,): empty, random, the picture's caption or an
        adversary."""
        count = len(pictures)
        chance = torch.rand(count, generator=generator)
        rows = torch.randint(1, 1 + RANDOM_TEXTS, (count,), generator=generator)
        rows[chance < mixture.empty] = 0
        adversarial = chance >= 1 - mixture.adversarial
        if len(self.caption_rows):
            captioned = (chance >= mixture.empty + mixture.random) & ~adversarial
            rows[captioned] = self.caption_rows[pictures][captioned]
        last = len(self.table) - ADVERSARIES
        rows[adversarial] = last + rows[adversarial] % ADVERSARIES
        return rows

    def pull(
        self, rows: torch.Tensor, gradients: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Sum a loss's gradients for each adversary, shaped like ``adversaries``.

        Args:
            rows: text rows (B,); rows of other texts are ignored.
            gradients: gradients by these texts' embeddings, (B, L, D) or (B, P).
        """
        first = len(self.table) - ADVERSARIES
        chosen = rows >= first
        return {
            name: torch.zeros_like(value).index_add_(
                0, rows[chosen] - first, gradients[name][chosen].float().cpu()
            )
            for name, value in self.adversaries.items()
        }

    def move_adversaries(self, pull: Mapping[str, torch.Tensor]) -> None:
        """Move each adversary against its gradient; every token keeps its norm.

        An adversary with a zero or non-finite gradient stays.
        """
        for name, value in self.adversaries.items():
            value.copy_(_moved(value, pull[name], self._lengths[name]))


def _moved(value: torch.Tensor, pull: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Move embeddings (K, L, D), or (K, P) of one token, one step against their gradient."""
    parts = (value, pull, lengths)
    tokens, pulls, sizes = (each.view(len(each), -1, each.shape[-1]) for each in parts)
    size = pulls.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    moved = (size > 0) & torch.isfinite(size)
    step = ADVERSARY_RATE * sizes.mean(dim=1, keepdim=True) * pulls / size
    direction = torch.nn.functional.normalize(tokens - step, dim=-1)
    return torch.where(moved, direction * sizes, tokens).view_as(value)
