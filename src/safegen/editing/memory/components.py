"""Components of an edit's memory on its device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from safegen.editing.settings import EditSettings

CARDS = (8, 12, 24)
"""Common sizes of GPU memory, in GiB."""
RESERVE = 2**30
"""Memory beside tensors: the driver's context, workspaces, fragmentation."""


@dataclass(frozen=True)
class EditMemory:
    """Memory of an edit on its device, in bytes.

    Attributes:
        frozen: frozen weights of the denoiser.
        trained: trained weights, in float32.
        gradients: gradients of the trained weights.
        optimizer: two moments of AdamW, or one of Muon.
        average: moving average of the trained weights.
        rehearsal: for a rehearsal, AdamW's two moments, the original values and the gradients
            of all weights.
        activations: peak memory of a step beside all these.
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
        """Peak memory."""
        return sum(getattr(self, field.name) for field in fields(self))

    def fits(self, card: int) -> bool:
        """Tell whether a GPU of ``card`` GiB suffices."""
        return self.total + RESERVE <= card * 2**30


def rehearsal_bytes(network: torch.nn.Module, settings: EditSettings) -> int:
    """Memory of rehearsals, with all of a network's weights in float32."""
    return 4 * sum(weight_bytes(network)) if settings.rehearsal.share else 0


def weight_bytes(network: torch.nn.Module) -> tuple[int, int]:
    """Bytes of a network's frozen and trained weights."""
    sizes = {True: 0, False: 0}
    for parameter in network.parameters():
        sizes[parameter.requires_grad] += parameter.nbytes
    return sizes[False], sizes[True]
