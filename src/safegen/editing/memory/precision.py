"""In which precision an edit computes and keeps the weights that it leaves alone."""

from __future__ import annotations

import torch
from torch import nn

from safegen.editing.settings import EditSettings
from safegen.models.options import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
MIXED: dict[Precision, str] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""What accelerate calls them."""


def frozen_dtype(settings: EditSettings) -> torch.dtype:
    """Of the weights that are not trained; by default that of the computation."""
    return DTYPES[settings.computation.kept_precision]


def autocast(settings: EditSettings, device: torch.device) -> torch.autocast:
    """The context in which a denoiser computes in the settings' precision."""
    enabled = settings.computation.precision != "fp32"
    return torch.autocast(device.type, DTYPES[settings.computation.precision], enabled=enabled)


class FrozenWeights:
    """A network's frozen weights, turned into another precision and back.

    Args:
        network: whose weights that take no gradient are frozen.
        dtype: to turn them into.
        keep: remember them as they were, on the processor, so that they can be put back.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, keep: bool) -> None:
        frozen = [p for p in network.parameters() if not p.requires_grad and p.dtype != dtype]
        self._originals = [(p, p.data.cpu()) for p in frozen] if keep else []
        for parameter in frozen:
            parameter.data = parameter.data.to(dtype)

    def put_back(self) -> None:
        """The weights as they were, if they were kept."""
        for parameter, original in self._originals:
            parameter.data = original.to(parameter.device)
        self._originals = []
