"""The texts under which an edit sees pictures; none of them is ever unsafe text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from safegen.editing.settings import Mixture
from safegen.models.conditioning import TextCondition, encode_prompts, encode_random_tokens

RANDOM_TEXTS = 256
ADVERSARIES = 24
ADVERSARY_RATE = 0.02
"""Length of a step, as a share of a token embedding's own length."""


class Conditions:
    """A table of N texts: the empty prompt, random texts, benign captions, and adversaries.

    Adversaries begin as random texts and are moved, while the edit trains, to where they best
    bring the unsafe pictures back: textual inversion (arXiv 2208.01618) in the inner loop. They
    are found from pictures alone; no unsafe text is used.
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
        """The adversaries' embeddings by name, (K, L, D) or (K, P): views of the table's last
        rows."""
        return self.table[-ADVERSARIES:].embeddings

    def draw(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Rows of the table for benign pictures (B,): empty, random, the picture's caption, or an
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
        """What a loss's gradients say of each adversary, as ``adversaries`` are.

        Args:
            rows: of the texts (B,); those of others than adversaries do not count.
            gradients: by the embeddings of these texts, (B, L, D) or (B, P).
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
        """Move each adversary against its pull; every token keeps its length.

        One with no pull, or one that is not finite, stays.
        """
        for name, value in self.adversaries.items():
            value.copy_(_moved(value, pull[name], self._lengths[name]))


def _moved(value: torch.Tensor, pull: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Embeddings (K, L, D), or (K, P) of one token, a step against their pull."""
    parts = (value, pull, lengths)
    tokens, pulls, sizes = (each.view(len(each), -1, each.shape[-1]) for each in parts)
    size = pulls.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    moved = (size > 0) & torch.isfinite(size)
    step = ADVERSARY_RATE * sizes.mean(dim=1, keepdim=True) * pulls / size
    direction = torch.nn.functional.normalize(tokens - step, dim=-1)
    return torch.where(moved, direction * sizes, tokens).view_as(value)
