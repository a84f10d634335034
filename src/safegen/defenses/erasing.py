"""Erasers: baselines that edit weights by a concept's text, and the defenses from their patches.

An eraser is one file with its settings, a patch factory named by an entry point of the group
``safegen.erasers``, and a defense that applies the patch (``load_patch_defense``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.patches.patch import Patch, base_of
from safegen.patches.patch import apply as apply_patch
from safegen.patches.patch import remove as remove_patch
from safegen.profiles import Profile
from safegen.registry import Registry, create, name_of
from safegen.version import code_versions

PACKAGES = ("torch", "diffusers", "transformers")
"""Packages, beside safegen, that an eraser's weights depend on."""

OnProgress = Callable[[int, int], None]
"""Callback (done, total) for iterations."""


class Eraser(Protocol):
    """Eraser of a concept."""

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """Make the patch; the pipeline stays as it was.

        Raises:
            SafegenError: the method does not fit the pipeline.
        """


EraserFactory = Callable[..., Eraser]
ERASERS: Registry[EraserFactory] = Registry("erasers")


def create_eraser(spec: str, profile: Profile | None = None) -> Eraser:
    """Create the eraser of ``name`` or ``name,option=value`` (such as ``esd-x,iterations=500``).

    Args:
        spec: a registered name, and settings of the method.
        profile: the model's profile, whose eraser settings replace the published ones.

    Raises:
        SafegenError: the name or an option is unknown, or an option's value is invalid.
    """
    usual = {} if profile is None else profile.erasers.get(name_of(spec), {})
    return create(ERASERS, spec, "esd-x,iterations=500", usual=usual)


@dataclass(frozen=True)
class PatchDefense(Defense):
    """Weight edit from a patch file.

    Attributes:
        name: name of the method.
        patch: patch with the differences.
        file_hash: SHA-256 of the file.
    """

    name: str
    patch: Patch
    file_hash: str

    changes = "weights"

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``; includes the patch's settings."""
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
    """Load the defense of a patch file.

    Raises:
        SafegenError: the file is no patch, or another method's.
    """
    file = Path(path)
    patch = Patch.load(file)
    made_by = patch.metadata.get("method", "safegen")
    family = made_by.partition("-")[0]
    if family != method:
        raise SafegenError(f"{path}: is a patch of {made_by}, not of {method}; use {family}:{path}")
    return PatchDefense(made_by, patch, file_hash(file))


def patch_metadata(
    pipeline: Any, method: str, concept: str, settings: dict[str, Any], part: str | None = None
) -> dict[str, Any]:
    """Metadata of a baseline's patch, in the form of an edit's; ``part`` as in ``base_of``."""
    return {
        "base": base_of(pipeline, part=part),
        **({} if part is None else {"part": part}),
        "method": method,
        "concept": concept,
        "settings": settings,
        "versions": code_versions(PACKAGES),
    }


def text_parameters(denoiser: torch.nn.Module) -> dict[str, list[str]]:
    """Names of the parameters of each attention over text, by the attention's name.

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
