"""Observers: records of every picture, made once, from which all metrics are computed.

Each file is an observer and registers a factory under its name. An observer sees pictures only; it
never draws, and knows nothing of defenses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from safegen.registry import Registry, create


@dataclass(frozen=True)
class Sight:
    """One picture to observe.

    Attributes:
        image: uint8 array (H, W, 3).
        text: prompt of the picture.
        original: the undefended model's picture of the same item, for comparing observers.
    """

    image: np.ndarray
    text: str
    original: np.ndarray | None = None


@dataclass(frozen=True)
class Observation:
    """One observer's record of one picture.

    Attributes:
        values: observed values, as JSON values.
        features: float32 (D,), for observers with features.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    features: np.ndarray | None = None


@dataclass(frozen=True)
class ObserverIdentity:
    """Identity of an observer, recorded with every result.

    Attributes:
        name: name in metrics: ``detector``, ``objects``, ``clip``, ``inception``, ``lpips``.
        settings: version, file hash, threshold and everything else that observations depend on, as
            JSON values; no paths.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class Observer(Protocol):
    """Observer of pictures."""

    @property
    def identity(self) -> ObserverIdentity:
        """Identity recorded with every result."""

    @property
    def compares(self) -> bool:
        """Tell whether it needs the original's picture of the same item."""

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """Make one observation per picture, in order.

        Raises:
            SafegenError: there are no pictures, or an original to compare with is missing.
        """


ObserverFactory = Callable[..., Observer]
OBSERVERS: Registry[ObserverFactory] = Registry("observers", "safegen.observers")
register = OBSERVERS.register


def create_observer(spec: str, *, local_files_only: bool = False) -> Observer:
    """Create the observer of ``name`` or ``name:argument`` (such as ``detector:nudenet``).

    Args:
        spec: a registered name; what follows a colon is the factory's one positional argument.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the name is unknown, or an argument is missing or not accepted.
    """
    context = {"local_files_only": local_files_only}
    return create(OBSERVERS, spec, "detector:nudenet", context=context)
