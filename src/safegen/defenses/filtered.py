"""Checkpoint trained without unsafe data: the role of SD-v2.1 in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safegen.defenses import Defense, DefenseIdentity, Undo, register
from safegen.defenses._exchange import exchange
from safegen.errors import SafegenError, first_line
from safegen.models.loading import load_pipeline, resolve
from safegen.models.weights import content_hash, hub_revision, weight_files
from safegen.patches.patch import is_patched
from safegen.profiles import Profile

_INDEX = "model_index.json"
_NOT_EXCHANGED = {"safety_checker", "feature_extractor", "image_encoder"}


@dataclass(frozen=True)
class Filtered(Defense):
    """Replace the UNet, or all parts of the pipeline, by another checkpoint's.

    Attributes:
        source: UNet folder, pipeline folder or hub id.
        local_files_only: never ask the hub.
    """

    source: str
    local_files_only: bool = False

    changes = "model"

    @property
    def comes_first(self) -> bool:
        """See ``Defense.comes_first``."""
        return True

    @cached_property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``; a folder is identified by its files, a hub id by its commit."""
        place = self._place
        if isinstance(place, Path):
            return DefenseIdentity("filtered", {"content_hash": content_hash(place)})
        revision = hub_revision(place, _INDEX, local_files_only=self.local_files_only)
        return DefenseIdentity("filtered", {"source": place, "revision": revision})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        if is_patched(pipeline):
            raise SafegenError(
                "filtered exchanges the UNet, and a patch is applied to it, which would be lost; "
                "put filtered on first"
            )
        return exchange(pipeline, self._parts(pipeline))

    @property
    def _place(self) -> Path | str:
        """Return the checkpoint's folder or hub id."""
        return resolve(self.source)

    def _parts(self, pipeline: Any) -> dict[str, Any]:
        """Load the new parts by name, on the device and in the precision of the old ones."""
        place = self._place
        if isinstance(place, Path) and not (place / _INDEX).is_file():
            return {"unet": _load_unet(place, pipeline)}
        return _load_parts(self.source, pipeline, self.local_files_only)


def _load_unet(folder: Path, pipeline: Any) -> Any:
    from diffusers import UNet2DConditionModel

    here = pipeline.unet
    weight_files(folder)
    try:
        unet = UNet2DConditionModel.from_pretrained(
            folder, dtype=here.dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise SafegenError(
            f"{folder}: cannot be loaded as a UNet ({reason}); "
            "give the folder that save_pretrained wrote"
        ) from error
    for name in ("in_channels", "cross_attention_dim", "sample_size"):
        if unet.config[name] != here.config[name]:
            raise SafegenError(
                f"{folder}: has {name} {unet.config[name]}, the pipeline's UNet "
                f"{here.config[name]}; give a whole pipeline instead of a UNet"
            )
    return unet.to(here.device).eval()


def _load_parts(source: str, pipeline: Any, local_files_only: bool) -> dict[str, Any]:
    other: Any = load_pipeline(
        source,
        dtype=pipeline.dtype,
        device=str(pipeline.device),
        local_files_only=local_files_only,
    )
    if type(other) is not type(pipeline) or other.vae_scale_factor != pipeline.vae_scale_factor:
        raise SafegenError(
            f"{source}: is a {type(other).__name__} and cannot stand in for this "
            f"{type(pipeline).__name__}; give a checkpoint of the same kind"
        )
    return {name: part for name, part in other.components.items() if name not in _NOT_EXCHANGED}


@register("filtered")
def filtered(
    source: str = "", *, profile: Profile | None = None, local_files_only: bool = False
) -> Filtered:
    """Checkpoint from a folder or hub id (default: the model's profile).

    Raises:
        SafegenError: no checkpoint is given and the profile has none.
    """
    usual = None if profile is None else profile.filtered
    if not source and usual is None:
        raise SafegenError(
            "filtered has to be told which checkpoint; name a folder or hub id: filtered:FOLDER"
        )
    return Filtered(source or str(usual), local_files_only)
