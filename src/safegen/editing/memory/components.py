"""The components of the memory that an edit takes on its device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from safegen.editing.settings import EditSettings

CARDS = (8, 12, 24)
"""Common sizes of a GPU's memory, in GiB."""
RESERVE = 2**30
"""What a card needs beside tensors: the driver's context, workspaces, fragments."""


@dataclass(frozen=True)
class EditMemory:
    """Bytes that an edit takes on its device.

    Attributes:
        frozen: the denoiser's weights that are not trained.
        trained: those that are, in float32.
        gradients: of the trained weights.
        optimizer: AdamW's two moments, or Muon's one.
        average: the moving average of the trained weights.
        rehearsal: for a rehearsed fine-tuning: AdamW's two moments of all weights, these as they
            were, and their gradients.
        activations: what a step takes beside all these at its peak.
    """

    frozen: int
    trained: int
    gradients: int
    optimizer: int
    average: int
    rehearsal: int
    activations: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(getattr(self, field.name) for field in fields(self))

    def fits(self, card: int) -> bool:
        """Whether a card of so many GiB suffices."""
        return self.total + RESERVE <= card * 2**30


def rehearsal_bytes(network: torch.nn.Module, settings: EditSettings) -> int:
    """Bytes that rehearsals take, with all of a network's weights in float32."""
    return 4 * sum(weight_bytes(network)) if settings.rehearsal.share else 0


def weight_bytes(network: torch.nn.Module) -> tuple[int, int]:
    """Bytes of a network's frozen and of its trained weights."""
    sizes = {True: 0, False: 0}
    for parameter in network.parameters():
        sizes[parameter.requires_grad] += parameter.nbytes
    return sizes[False], sizes[True]
