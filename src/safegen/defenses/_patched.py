"""Defenses that are a patch: weights edited beforehand, put on from a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from safegen.defenses import Defense, DefenseIdentity, Undo
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.models.anatomy import denoiser_of, fingerprint
from safegen.patches.patch import Patch
from safegen.patches.patch import apply as apply_patch
from safegen.patches.patch import remove as remove_patch
from safegen.version import __version__


@dataclass(frozen=True)
class PatchDefense(Defense):
    """A weight edit from a patch file.

    Attributes:
        name: of the method.
        patch: the differences.
        file_hash: SHA-256 of the file.
    """

    name: str
    patch: Patch
    file_hash: str

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``; with the settings that the patch was made with."""
        metadata = self.patch.metadata
        return DefenseIdentity(
            self.name,
            {
                "file_hash": self.file_hash,
                "concept": metadata.get("concept"),
                "settings": metadata.get("settings", {}),
            },
        )

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        apply_patch(pipeline, self.patch)

        def undo() -> None:
            remove_patch(pipeline, self.patch)

        return undo


def load_patch_defense(method: str, path: str) -> PatchDefense:
    """The defense in a patch file.

    Raises:
        SafegenError: the file is no patch, or one that another method made.
    """
    file = Path(path)
    patch = Patch.load(file)
    made_by = patch.metadata.get("method", "safegen")
    family = made_by.partition("-")[0]
    if family != method:
        raise SafegenError(f"{path}: is a patch of {made_by}, not of {method}; use {family}:{path}")
    return PatchDefense(made_by, patch, file_hash(file))


def patch_metadata(
    pipeline: Any, method: str, concept: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a baseline's patch says of how it came about, in the form of an edit's patch."""
    denoiser = denoiser_of(pipeline)
    return {
        "base": {
            "name": str(getattr(pipeline, "name_or_path", "") or "unknown"),
            "class": type(denoiser).__name__,
            "fingerprint": fingerprint(denoiser),
        },
        "method": method,
        "concept": concept,
        "settings": settings,
        "versions": {
            "safegen": __version__,
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        },
    }


def text_parameters(denoiser: torch.nn.Module) -> dict[str, list[str]]:
    """Names of the parameters of each attention that takes text, by the attention's name.

    Raises:
        SafegenError: the architecture has no separate cross-attention.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention import BasicTransformerBlock

    if not isinstance(denoiser, UNet2DConditionModel):
        raise SafegenError(
            f"{type(denoiser).__name__}: this method is made for Stable Diffusion's UNets; "
            "transformers such as PixArt and Sana change a text before they attend to it"
        )
    found: dict[str, list[str]] = {}
    for block_name, block in denoiser.named_modules():
        if not isinstance(block, BasicTransformerBlock):
            continue
        for part in ("attn1", "attn2"):
            attention = getattr(block, part, None)
            if attention is not None and attention.is_cross_attention:
                name = f"{block_name}.{part}" if block_name else part
                found[name] = [f"{name}.{each}" for each, _ in attention.named_parameters()]
    if not found:
        raise SafegenError(
            f"{type(denoiser).__name__}: no cross-attention found, so this method has nothing "
            "to edit; it is made for Stable Diffusion's UNets"
        )
    return found
