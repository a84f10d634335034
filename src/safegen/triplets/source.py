"""What every source of triplets offers: a stream of pairs, a stream of benign pictures."""

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
        unsafe: the picture as it is.
        censored: the same with the offending regions made unrecognisable.
        name: where it is from, for messages.

    Raises:
        SafegenError: their sizes differ, or they are identical and would teach nothing.
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
    """A benign picture, uint8 (H, W, 3), and the text that describes it, where there is one."""

    image: np.ndarray
    caption: str | None = None


class TripletSource(Protocol):
    """Streams triplets; no more than a batch of pictures is in memory at a time."""

    def pairs(self) -> Iterator[Pair]:
        """The unsafe pictures with their censored twins, in a fixed order."""

    def benign(self) -> Iterator[Benign]:
        """The benign pictures in a fixed order; their number may differ from the pairs'."""

    def describe(self) -> dict[str, Any]:
        """Provenance as JSON values; counts are complete once both streams have been read."""


class WatchedTriplets:
    """A source that reports each picture as it streams by, for progress and for review."""

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
