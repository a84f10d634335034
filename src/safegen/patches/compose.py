"""Sums and multiples of patches, since weight differences add up."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.patches.patch import Patch


def combine(patches: Sequence[Patch], scale: float = 1.0) -> Patch:
    """Combine patches to ``scale`` times their sum.

    A single patch at scale 1 is returned as it is. The metadata are the first patch's;
    ``combined`` lists the others and the scale.

    Args:
        patches: patches of one architecture.
        scale: factor; 1 is the full effect, 0.5 half the differences but not half the effect.

    Raises:
        SafegenError: there is none, the scale is 0 or not finite, or the patches do not fit.
    """
    if not patches:
        raise SafegenError("no patch given; name at least one")
    if not isfinite(scale) or scale == 0:
        raise SafegenError(f"the scale of a patch must be a number other than 0, not {scale}")
    if len(patches) == 1 and scale == 1:
        return patches[0]
    total: dict[str, torch.Tensor] = {}
    for patch in patches:
        for name, difference in patch.differences.items():
            if name in total and total[name].shape != difference.shape:
                raise SafegenError(
                    f"the patches were made for different architectures: {name} is "
                    f"{tuple(total[name].shape)} in one and {tuple(difference.shape)} in another"
                )
            total[name] = total.get(name, 0) + scale * difference.float()
            if not bool(torch.isfinite(total[name]).all()):
                raise SafegenError(f"the scale {scale:g} makes {name} infinite; give one near 1")
    return Patch(total, _metadata(patches, scale))


def _metadata(patches: Sequence[Patch], scale: float) -> dict[str, Any]:
    methods = {patch.metadata.get("method", "safegen") for patch in patches}
    if len(methods) > 1:
        raise SafegenError(
            f"patches of different methods ({', '.join(sorted(methods))}) are not summed, since "
            "the sum would be of none; apply them one after the other"
        )
    concepts = [str(patch.metadata.get("concept", "unsafe")) for patch in patches]
    return {
        **patches[0].metadata,
        "concept": " and ".join(dict.fromkeys(concepts)),
        "combined": {"scale": scale, "patches": [patch.metadata for patch in patches]},
    }
