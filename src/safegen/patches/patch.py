"""A patch: the differences an edit made, applied to a pipeline and taken away again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, fingerprint
from safegen.tensors import read_tensors, write_tensors

FORMAT = "safegen-patch/1"
_APPLIED = "_safegen_patches"


class DifferentBaseWarning(UserWarning):
    """A patch was applied to another checkpoint than it was made on."""


@dataclass(frozen=True)
class Patch:
    """What an edit changed.

    Attributes:
        differences: by parameter name, edited minus original, float32.
        metadata: base (name, class, fingerprint), concept, settings, seeds, versions, source.
    """

    differences: dict[str, torch.Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.differences.items():
            if not bool(torch.isfinite(value).all()):
                raise SafegenError(f"the patch's {name} holds NaN or infinity; edit again")
        if not any(bool(value.any()) for value in self.differences.values()):
            raise SafegenError("the patch changes no weight, so it would protect from nothing")

    def save(self, path: Path) -> None:
        """Write as safetensors with the metadata in its header."""
        write_tensors(path, FORMAT, self.differences, self.metadata)

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read what ``save`` wrote."""
        differences, metadata = read_tensors(
            path,
            FORMAT,
            kind="patch file",
            foreign="no safegen patch; make one with 'safegen edit'",
            mend="copy or make it again",
        )
        return cls(differences, metadata)


@dataclass
class _Applied:
    """What patches changed on a denoiser.

    Attributes:
        base: its fingerprint before any.
        originals: the weights that each patch replaced, by the patch's names.
    """

    base: str
    originals: dict[frozenset[str], dict[str, torch.Tensor]] = field(default_factory=dict)


@torch.no_grad()
def apply(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Add a patch's differences to a pipeline's weights, in place; returns the pipeline.

    Several patches can be applied where they change different weights.

    Raises:
        SafegenError: another architecture, or a patch of some of the same weights is applied.

    Warns:
        DifferentBaseWarning: the pipeline is another checkpoint than the patch was made on.
    """
    loaded = patch if isinstance(patch, Patch) else Patch.load(Path(patch))
    denoiser = denoiser_of(pipeline)
    applied: _Applied | None = getattr(denoiser, _APPLIED, None)
    _check_disjoint(applied, loaded)
    parameters = dict(denoiser.named_parameters())
    _check_architecture(denoiser, parameters, loaded)
    applied = applied or _Applied(fingerprint(denoiser))
    _check_base(pipeline, applied.base, loaded)
    originals = {}
    for name, difference in loaded.differences.items():
        parameter = parameters[name]
        originals[name] = parameter.detach().cpu().clone()
        changed = parameter.detach().float() + difference.to(parameter.device)
        parameter.copy_(changed.to(parameter.dtype))
    applied.originals[frozenset(originals)] = originals
    setattr(denoiser, _APPLIED, applied)
    return pipeline


@torch.no_grad()
def remove(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Put the weights back that were there before ``apply``, bit for bit."""
    loaded = patch if isinstance(patch, Patch) else Patch.load(Path(patch))
    denoiser = denoiser_of(pipeline)
    applied: _Applied | None = getattr(denoiser, _APPLIED, None)
    names = frozenset(loaded.differences)
    if applied is None or names not in applied.originals:
        raise SafegenError("this patch is not applied to the pipeline, so it cannot be removed")
    parameters = dict(denoiser.named_parameters())
    for name, value in applied.originals.pop(names).items():
        parameters[name].copy_(value)
    if not applied.originals:
        delattr(denoiser, _APPLIED)
    return pipeline


def is_patched(pipeline: Any) -> bool:
    """Whether any patch is applied to the pipeline's denoiser."""
    return hasattr(denoiser_of(pipeline), _APPLIED)


def _check_disjoint(applied: _Applied | None, patch: Patch) -> None:
    for names in applied.originals if applied else ():
        shared = sorted(names & patch.differences.keys())
        if shared:
            raise SafegenError(
                f"a patch is applied already that changes {len(shared)} of the same weights, "
                f"{shared[0]} among them; call safegen.remove(pipe, patch) first"
            )


def _check_architecture(
    denoiser: torch.nn.Module, parameters: dict[str, torch.nn.Parameter], patch: Patch
) -> None:
    for name, difference in patch.differences.items():
        if name not in parameters:
            raise SafegenError(
                f"the patch was made for another architecture: {type(denoiser).__name__} has no "
                f"{name}; edit this model itself"
            )
        if parameters[name].shape != difference.shape:
            raise SafegenError(
                f"the patch was made for another architecture: {name} is "
                f"{tuple(difference.shape)} in the patch and {tuple(parameters[name].shape)} in "
                "the model; edit this model itself"
            )


def _check_base(pipeline: Any, here: str, patch: Patch) -> None:
    base = patch.metadata.get("base", {})
    if base.get("fingerprint") != here:
        name = getattr(pipeline, "name_or_path", None) or type(pipeline).__name__
        warnings.warn(
            f"the patch was made on {base.get('name')} ({str(base.get('fingerprint'))[:12]}) and "
            f"is applied to {name} ({here[:12]}) as a difference; measure its effect",
            DifferentBaseWarning,
            stacklevel=3,
        )
