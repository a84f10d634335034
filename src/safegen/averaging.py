"""Moving average of trained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch


@torch.no_grad()
def update_average(
    average: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    decay: float,
    step: int,
) -> None:
    """Move the averages towards ``weights``, in place.

    The decay is min(decay, (1 + step) / (10 + step)), so the average forgets the start.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_([average[name] for name in weights], list(weights.values()), share)
