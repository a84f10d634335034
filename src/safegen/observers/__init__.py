"""Observers: what is recorded of every picture, once, from which all metrics are computed.

One file an observer; each registers a factory under the file's name. An observer looks at
pictures only; it never draws, and knows nothing of defenses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from safegen.registry import Registry, create


@dataclass(frozen=True)
class Sight:
    """One picture to look at.

    Attributes:
        image: uint8 array (H, W, 3).
        text: the prompt it was drawn for.
        original: the undefended model's picture of the same item, for observers that compare.
    """

    image: np.ndarray
    text: str
    original: np.ndarray | None = None


@dataclass(frozen=True)
class Observation:
    """What one observer records of one picture.

    Attributes:
        values: as JSON values.
        features: float32 (D,), where the observer has features.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    features: np.ndarray | None = None


@dataclass(frozen=True)
class ObserverIdentity:
    """What a result must record of the observer.

    Attributes:
        name: as metrics ask for it: ``detector``, ``objects``, ``clip``, ``inception``, ``lpips``.
        settings: version, file hash, threshold and all else that observations depend on, as
            JSON values; no paths.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class Observer(Protocol):
    """Looks at pictures."""

    @property
    def identity(self) -> ObserverIdentity:
        """What to record beside every result."""

    @property
    def compares(self) -> bool:
        """Whether it needs the original's picture of the same item."""

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """One observation a picture, in order.

        Raises:
            SafegenError: no picture was given, or an original is missing that it compares with.
        """


ObserverFactory = Callable[..., Observer]
OBSERVERS: Registry[ObserverFactory] = Registry("observers", "safegen.observers")
register = OBSERVERS.register


def create_observer(spec: str, *, local_files_only: bool = False) -> Observer:
    """The observer of ``name``, or of ``name:argument`` (such as ``detector:nudenet``).

    Args:
        spec: a registered name; what follows a colon is the factory's one positional argument.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the name is unknown, or an argument is missing or not taken.
    """
    context = {"local_files_only": local_files_only}
    return create(OBSERVERS, spec, "detector:nudenet", context=context)
