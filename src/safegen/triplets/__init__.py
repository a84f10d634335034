"""Triplets <unsafe, censored, benign>: sources of pictures, and how regions are censored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safegen.registry import Registry, create

if TYPE_CHECKING:
    from safegen.triplets.source import TripletSource

SOURCES: Registry[Callable[..., TripletSource]] = Registry("triplets")


def create_triplets(spec: str, **options: Any) -> TripletSource:
    """Create the source of a spec such as ``lab:weapons``.

    Raises:
        SafegenError: the name or an option is unknown.
    """
    return create(SOURCES, spec, "lab:weapons", options)
