"""safegen hardens text-to-image models from the inside and shows that it held.

``edit`` makes a patch, ``apply`` and ``remove`` put it on and take it off a diffusers pipeline.
Nothing heavy is imported before one of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from safegen.errors import SafegenError
from safegen.version import __version__

if TYPE_CHECKING:
    from safegen.editing.latents import TripletLatents, encode_triplets
    from safegen.editing.run import edit
    from safegen.editing.settings import EditSettings, Mixture
    from safegen.models.sampling import ImageRequest, SamplingSettings, generate
    from safegen.patches.patch import Patch, apply, remove
    from safegen.release.loading import load_pipeline

_HOMES = {
    "EditSettings": "safegen.editing.settings",
    "ImageRequest": "safegen.models.sampling",
    "Mixture": "safegen.editing.settings",
    "Patch": "safegen.patches.patch",
    "SamplingSettings": "safegen.models.sampling",
    "TripletLatents": "safegen.editing.latents",
    "apply": "safegen.patches.patch",
    "edit": "safegen.editing.run",
    "encode_triplets": "safegen.editing.latents",
    "generate": "safegen.models.sampling",
    "load_pipeline": "safegen.release.loading",
    "remove": "safegen.patches.patch",
}

__all__ = [
    "EditSettings",
    "ImageRequest",
    "Mixture",
    "Patch",
    "SafegenError",
    "SamplingSettings",
    "TripletLatents",
    "__version__",
    "apply",
    "edit",
    "encode_triplets",
    "generate",
    "load_pipeline",
    "remove",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")
