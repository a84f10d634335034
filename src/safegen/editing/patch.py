"""A patch: the differences an edit made, applied to a pipeline and taken away again."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.models.anatomy import denoiser_of, fingerprint

FORMAT = "safegen-patch/1"
_ORIGINALS = "_safegen_originals"


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
        header = {"format": FORMAT, "safegen": json.dumps(self.metadata, sort_keys=True)}
        tensors = {name: value.contiguous() for name, value in self.differences.items()}
        write_atomically(path, save(tensors, header))

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read what ``save`` wrote."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise SafegenError(f"{path}: no safegen patch; make one with 'safegen edit'")
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError as error:
            raise SafegenError(f"{path}: no such patch file; check the path") from error
        except (SafetensorError, OSError) as error:
            raise SafegenError(
                f"{path}: truncated or no safetensors file ({error}); copy or make it again"
            ) from error
        return cls(tensors, json.loads(header["safegen"]))


@torch.no_grad()
def apply(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Add a patch's differences to a pipeline's weights, in place; returns the pipeline.

    Raises:
        SafegenError: another architecture, or a patch is applied already.

    Warns:
        DifferentBaseWarning: the pipeline is another checkpoint than the patch was made on.
    """
    loaded = patch if isinstance(patch, Patch) else Patch.load(Path(patch))
    denoiser = denoiser_of(pipeline)
    if getattr(denoiser, _ORIGINALS, None) is not None:
        raise SafegenError("a patch is applied already; call safegen.remove(pipe, patch) first")
    parameters = dict(denoiser.named_parameters())
    _check_architecture(denoiser, parameters, loaded)
    _check_base(pipeline, denoiser, loaded)
    originals = {}
    for name, difference in loaded.differences.items():
        parameter = parameters[name]
        originals[name] = parameter.detach().cpu().clone()
        changed = parameter.detach().float() + difference.to(parameter.device)
        parameter.copy_(changed.to(parameter.dtype))
    setattr(denoiser, _ORIGINALS, originals)
    return pipeline


@torch.no_grad()
def remove(pipeline: Any, patch: Patch | str | Path) -> Any:
    """Put the weights back that were there before ``apply``, bit for bit."""
    loaded = patch if isinstance(patch, Patch) else Patch.load(Path(patch))
    denoiser = denoiser_of(pipeline)
    originals = getattr(denoiser, _ORIGINALS, None)
    if originals is None or originals.keys() != loaded.differences.keys():
        raise SafegenError("this patch is not applied to the pipeline, so it cannot be removed")
    parameters = dict(denoiser.named_parameters())
    for name, value in originals.items():
        parameters[name].copy_(value)
    setattr(denoiser, _ORIGINALS, None)
    return pipeline


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


def _check_base(pipeline: Any, denoiser: torch.nn.Module, patch: Patch) -> None:
    base = patch.metadata.get("base", {})
    here = fingerprint(denoiser)
    if base.get("fingerprint") != here:
        name = getattr(pipeline, "name_or_path", None) or type(pipeline).__name__
        warnings.warn(
            f"the patch was made on {base.get('name')} ({str(base.get('fingerprint'))[:12]}) and "
            f"is applied to {name} ({here[:12]}) as a difference; measure its effect",
            DifferentBaseWarning,
            stacklevel=3,
        )
