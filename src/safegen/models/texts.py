"""Text conditions: what a denoiser takes beside the latent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch._subclasses.fake_tensor import is_fake

POOLED = "text_embeds"
"""Name of pooled text features among the added conditions."""


@dataclass(frozen=True)
class TextCondition:
    """Conditions of N texts: everything that a denoiser takes beside the latent.

    Attributes:
        hidden: hidden states (N, L, D) of the text encoders.
        mask: valid tokens (N, L), for denoisers with a mask.
        added: further conditions by name, each (N, ...): pooled features, SDXL's time ids,
            PixArt-alpha's resolution and aspect ratio, HunyuanImage's quoted letters.
    """

    hidden: torch.Tensor
    mask: torch.Tensor | None = None
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: torch.Tensor | slice | list[int]) -> TextCondition:
        """Select some of the texts; a slice gives views."""
        return self._each(lambda value: value[rows])

    def expand(self, count: int) -> TextCondition:
        """Repeat one text ``count`` times."""
        return self[[0] * count]

    @property
    def pooled(self) -> torch.Tensor | None:
        """Pooled features (N, P), for denoisers that take them."""
        return self.added.get(POOLED)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each text: up to its last valid one, and all without values."""
        longest = self.hidden.shape[1]
        if self.mask is None or is_fake(self.mask):
            return [longest] * len(self)
        places = torch.arange(1, longest + 1, device=self.mask.device)
        return [int(row) for row in (self.mask.bool() * places).amax(dim=1)]

    @property
    def embeddings(self) -> dict[str, torch.Tensor]:
        """Parts that distinguish texts: hidden states and pooled features, if any."""
        pooled = {} if self.pooled is None else {POOLED: self.pooled}
        return {"hidden": self.hidden, **pooled}

    def with_embeddings(self, embeddings: Mapping[str, torch.Tensor]) -> TextCondition:
        """Replace the parts of ``embeddings`` by others of the same names and shapes."""
        pooled = {name: value for name, value in embeddings.items() if name != "hidden"}
        return TextCondition(embeddings["hidden"], self.mask, {**self.added, **pooled})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextCondition:
        """Move to another device, and convert everything except masks to another precision."""
        return self._each(
            lambda value: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        )

    @classmethod
    def cat(cls, parts: Sequence[TextCondition]) -> TextCondition:
        """Concatenate conditions of one family."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            torch.cat([part.hidden for part in parts]),
            torch.cat(masks) if masks else None,
            {name: torch.cat([part.added[name] for part in parts]) for name in parts[0].added},
        )

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TextCondition:
        return TextCondition(
            change(self.hidden),
            None if self.mask is None else change(self.mask),
            {name: change(value) for name, value in self.added.items()},
        )
