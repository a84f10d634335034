"""Interface of triplet sources: a stream of pairs and a stream of benign pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from safegen.errors import SafegenError


@dataclass(frozen=True, eq=False)
class Pair:
    """An unsafe picture and its censored twin, both uint8 (H, W, 3).

    Attributes:
        unsafe: the original picture.
        censored: the same picture with unsafe regions made unrecognisable.
        name: origin of the pair, for messages.

    Raises:
        SafegenError: the sizes differ, or the pictures are identical and would teach nothing.
    """

    unsafe: np.ndarray
    censored: np.ndarray
    name: str

    def __post_init__(self) -> None:
        if self.unsafe.shape != self.censored.shape:
            raise SafegenError(
                f"{self.name}: the unsafe picture is {_size(self.unsafe)} and its censored one "
                f"{_size(self.censored)}; censor a copy of the same size"
            )
        if np.array_equal(self.unsafe, self.censored):
            raise SafegenError(
                f"{self.name}: the unsafe and the censored picture are identical; "
                "censor the offending region"
            )


@dataclass(frozen=True, eq=False)
class Benign:
    """A benign picture, uint8 (H, W, 3), with any caption."""

    image: np.ndarray
    caption: str | None = None


class TripletSource(Protocol):
    """Source of triplets; streams at most a batch of pictures at a time."""

    def pairs(self) -> Iterator[Pair]:
        """Stream the unsafe pictures with their censored twins, in a fixed order."""

    def benign(self) -> Iterator[Benign]:
        """Stream the benign pictures in a fixed order; their number may differ from the pairs'."""

    def describe(self) -> dict[str, Any]:
        """Provenance as JSON values; counts are complete after both streams."""


class WatchedTriplets:
    """Source that reports each streamed picture, for progress and review."""

    def __init__(
        self,
        source: TripletSource,
        on_pair: Callable[[Pair], None],
        on_benign: Callable[[Benign], None],
    ) -> None:
        self._source = source
        self._on_pair = on_pair
        self._on_benign = on_benign

    def pairs(self) -> Iterator[Pair]:
        """See ``TripletSource.pairs``."""
        for pair in self._source.pairs():
            self._on_pair(pair)
            yield pair

    def benign(self) -> Iterator[Benign]:
        """See ``TripletSource.benign``."""
        for picture in self._source.benign():
            self._on_benign(picture)
            yield picture

    def describe(self) -> dict[str, Any]:
        """See ``TripletSource.describe``."""
        return self._source.describe()


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
