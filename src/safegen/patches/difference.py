"""Finished models as patches: the difference to their base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, scope_names
from safegen.models.loading import public_name
from safegen.models.options import Scope
from safegen.patches.patch import Patch, base_of
from safegen.version import code_versions

METHOD = "checkpoint"
"""Method name in the metadata, since the true method is unknown."""
WHOLE = "all weights"
_ROUNDED = (torch.float16, torch.bfloat16)

Weights = Mapping[str, torch.Tensor]


def difference(base: Any, finished: Any) -> Patch:
    """Make the patch that turns one pipeline's denoiser into another's.

    Weights that differ only by rounding, as in a half-precision variant, count as equal. The
    metadata name the changed weights' scope under ``settings``, and other parts of the pipelines
    that differ under ``left_out``.

    Raises:
        SafegenError: the denoisers have different architectures, or are equal.
    """
    before, after = (dict(denoiser_of(each).named_parameters()) for each in (base, finished))
    _check_shapes(before, after)
    names = [name for name in before if not _same(before[name], after[name])]
    left_out = list(_other_parts(base, finished))
    if not names:
        others = f"; its {' and '.join(left_out)} differ, which a patch cannot hold" * any(left_out)
        raise SafegenError(
            f"{public_name(finished)}: has the same denoiser as the base, so there is nothing to "
            f"make a patch of{others}; name the model that was edited after --from"
        )
    denoiser, changed = denoiser_of(base), set(names)
    scopes = (each for each in get_args(Scope) if changed <= _inside(denoiser, each))
    metadata = {
        "base": base_of(base),
        "method": METHOD,
        "settings": {
            "scope": next(scopes, WHOLE),
            "outside_self_attention": len(changed - _inside(denoiser, "self-attention")),
        },
        "made_from": base_of(finished),
        "left_out": left_out,
        "versions": code_versions(("torch", "diffusers", "transformers")),
    }
    return Patch({name: (after[name] - before[name]).detach().float() for name in names}, metadata)


def _inside(denoiser: torch.nn.Module, scope: Scope) -> set[str]:
    """Names of a scope's weights; none where text and picture share attention."""
    try:
        return set(scope_names(denoiser, scope))
    except SafegenError:
        return set()


def _check_shapes(before: Weights, after: Weights) -> None:
    mend = "name the base model that it was made from"
    for name in sorted(before.keys() ^ after.keys()):
        raise SafegenError(
            f"the models are of different architectures: only one of them has {name}; {mend}"
        )
    for name, value in before.items():
        if value.shape != after[name].shape:
            raise SafegenError(
                f"the models are of different architectures: {name} is {tuple(value.shape)} in "
                f"the base and {tuple(after[name].shape)} in the other; {mend}"
            )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether weights are equal, or one is the other in a lower precision."""
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    return torch.equal(one, other) or any(
        torch.equal(each.to(dtype).float(), rounded)
        for dtype in _ROUNDED
        for each, rounded in ((one, other), (other, one))
    )


def _other_parts(base: Any, finished: Any) -> Iterator[str]:
    """Names of the networks, except the denoiser, that differ."""
    for name, part in base.components.items():
        other = finished.components.get(name)
        if part is denoiser_of(base) or not all(
            isinstance(each, torch.nn.Module) for each in (part, other)
        ):
            continue
        one, two = part.state_dict(), other.state_dict()
        if one.keys() != two.keys() or not all(_same(one[key], two[key]) for key in one):
            yield name
