"""A patch: the weight differences of an edit, applied to a pipeline and removed."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, fingerprint, tensor_digest
from safegen.models.loading import public_name
from safegen.tensors import ANY, FLOATS, Entry, Schema, write_tensors

SCHEMA = Schema(
    form="safegen-patch/1",
    kind="patch file",
    maker="safegen edit",
    tensors={ANY: Entry(FLOATS)},
    optional={"base": dict, "concept": str, "method": str, "part": str, "settings": dict},
)
"""Schema of patch files; the model decides which names and shapes are valid."""
TEXT_ENCODER = "text_encoder"
"""The part that a patch's metadata may name; without one, a patch is of the denoiser."""
_APPLIED = "_safegen_patches"


class DifferentBaseWarning(UserWarning):
    """A patch was applied to another checkpoint than its base."""


@dataclass(frozen=True)
class Patch:
    """Weight differences of an edit.

    Attributes:
        differences: edited minus original weights by parameter name, float32.
        metadata: base (name, class, fingerprint), part, concept, settings, seeds, versions, source.
    """

    differences: dict[str, torch.Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        SCHEMA.check("the patch", self.differences)
        for name, value in self.differences.items():
            if not bool(torch.isfinite(value).all()):
                raise SafegenError(f"the patch's {name} holds NaN or infinity; edit again")
        if not any(bool(value.any()) for value in self.differences.values()):
            raise SafegenError("the patch changes no weight, so it would protect from nothing")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the differences, which identifies the patch."""
        digest = hashlib.sha256()
        for name, value in sorted(self.differences.items()):
            digest.update(name.encode() + tensor_digest(value.contiguous()))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the patch as safetensors with the metadata in the header."""
        write_tensors(path, SCHEMA.form, self.differences, self.metadata)

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read a patch that ``save`` wrote.

        Raises:
            SafegenError: the file is missing, damaged, or no patch.
        """
        differences, metadata = SCHEMA.read(path)
        try:
            return cls(differences, metadata)
        except SafegenError as error:
            raise SafegenError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _Replaced:
    """Weights that a patch replaced, by name, and the patch's name in messages."""

    title: str
    originals: dict[str, torch.Tensor]


@dataclass
class _Applied:
    """Patches applied to a denoiser.

    Attributes:
        base: fingerprint before the first patch.
        patches: replaced weights by the patch's digest.
    """

    base: str
    patches: dict[str, _Replaced] = field(default_factory=dict)


@torch.no_grad()
def apply(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Add a patch's differences to a pipeline's weights in place; returns the pipeline.

    Several patches can be applied if they change different weights.

    Raises:
        SafegenError: the architecture differs, or an applied patch changes the same weights.

    Warns:
        DifferentBaseWarning: the pipeline is another checkpoint than the patch's base.
    """
    loaded, title = _loaded(patch)
    network = _patched(pipeline, loaded.metadata.get("part"))
    applied: _Applied | None = getattr(network, _APPLIED, None)
    _check_disjoint(applied, loaded)
    parameters = dict(network.named_parameters())
    _check_architecture(network, parameters, loaded)
    applied = applied or _Applied(fingerprint(network))
    _check_base(pipeline, applied.base, loaded)
    originals = {}
    for name, difference in loaded.differences.items():
        parameter = parameters[name]
        originals[name] = parameter.detach().cpu().clone()
        changed = parameter.detach().float() + difference.to(parameter.device)
        parameter.copy_(changed.to(parameter.dtype))
    applied.patches[loaded.digest] = _Replaced(title, originals)
    setattr(network, _APPLIED, applied)
    return pipeline


@torch.no_grad()
def remove(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Restore the weights from before ``apply``, bit for bit.

    Raises:
        SafegenError: this patch is not applied, though others may be.
    """
    loaded, title = _loaded(patch)
    network = _patched(pipeline, loaded.metadata.get("part"))
    applied: _Applied | None = getattr(network, _APPLIED, None)
    if applied is None or loaded.digest not in applied.patches:
        there = [each.title for each in applied.patches.values()] if applied else ["no patch"]
        raise SafegenError(
            f"{title} is not applied to the pipeline, so it cannot be removed; "
            f"applied: {', '.join(there)}"
        )
    parameters = dict(network.named_parameters())
    for name, value in applied.patches.pop(loaded.digest).originals.items():
        parameters[name].copy_(value)
    if not applied.patches:
        delattr(network, _APPLIED)
    return pipeline


def base_of(pipeline: Any, weights: str | None = None, part: str | None = None) -> dict[str, str]:
    """Identify a patch's base model, the same on every machine.

    Args:
        pipeline: the model.
        weights: fingerprint of the patched part, if known.
        part: the patched part; None is the denoiser.
    """
    network = _patched(pipeline, part)
    return {
        "name": public_name(pipeline),
        "class": type(network).__name__,
        "fingerprint": weights or fingerprint(network),
    }


def _patched(pipeline: Any, part: str | None) -> torch.nn.Module:
    """Return the network that a patch of this part changes."""
    if part is None:
        return denoiser_of(pipeline)
    network = getattr(pipeline, TEXT_ENCODER, None)
    if part != TEXT_ENCODER or network is None:
        raise SafegenError(
            f"the patch is of the part {part!r}, which {type(pipeline).__name__} does not have or "
            "no patch may change; use a patch of this model"
        )
    return network  # type: ignore[no-any-return]


def _loaded(patch: Patch | str | Path) -> tuple[Patch, str]:
    """Load a patch, and return it with its name in messages."""
    if not isinstance(patch, Patch):
        return Patch.load(Path(patch)), str(patch)
    concept = patch.metadata.get("concept", "unsafe")
    return patch, f"the patch of {concept} ({patch.digest[:8]})"


def is_patched(pipeline: Any) -> bool:
    """Tell whether any patch is applied to the pipeline's denoiser."""
    return hasattr(denoiser_of(pipeline), _APPLIED)


def _check_disjoint(applied: _Applied | None, patch: Patch) -> None:
    for each in applied.patches.values() if applied else ():
        shared = sorted(each.originals.keys() & patch.differences.keys())
        if shared:
            raise SafegenError(
                f"{each.title} is applied already and changes {len(shared)} of the same weights, "
                f"{shared[0]} among them; call safegen.remove(pipe, patch) with it first"
            )


def _check_architecture(
    network: torch.nn.Module, parameters: dict[str, torch.nn.Parameter], patch: Patch
) -> None:
    for name, difference in patch.differences.items():
        if name not in parameters:
            raise SafegenError(
                f"the patch was made for another architecture: {type(network).__name__} has no "
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
        warnings.warn(
            f"the patch was made on {base.get('name')} ({str(base.get('fingerprint'))[:12]}) and "
            f"is applied to {public_name(pipeline)} ({here[:12]}) as a difference; "
            "measure its effect",
            DifferentBaseWarning,
            stacklevel=3,
        )
