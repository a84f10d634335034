"""Triplets that the model makes itself, so that nobody has to collect unsafe pictures.

The unsafe pictures live in memory only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from safegen.detectors import Detection, Detector
from safegen.errors import SafegenError
from safegen.triplets import Censoring
from safegen.triplets.censoring import censor
from safegen.triplets.reading import boxes_of
from safegen.triplets.source import Benign, Pair

if TYPE_CHECKING:
    from safegen.models.sampling import ImageRequest, SamplingSettings

ATTEMPTS_PER_PICTURE = 5
"""After this many tries for each picture asked for, the prompts or the detector do not fit."""
LARGEST_SEED = 2**63
"""Of the first picture; torch takes seeds below 2^64, and each picture has the next one."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Examined:
    request: ImageRequest
    image: np.ndarray
    detections: list[Detection]


class SelfMadeTriplets:
    """Generates unsafe pictures until the detector has flagged ``count``, and benign ones.

    Picture ``i`` of a stream is made from prompt ``i`` (cycling) with seed ``seed + i``, so the
    triplets depend on the arguments only.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        unsafe_prompts: texts that bring the concept out of the model.
        benign_prompts: texts of what must stay.
        detector: flags the unsafe pictures, and gives the boxes to censor.
        count: unsafe pictures to keep, and benign ones in which nothing is found.
        seed: of the first picture of each stream.
        settings: how pictures are sampled; the default settings if None.
        censoring: how the boxes are made unrecognisable.
        batch: pictures generated at a time.

    Raises:
        SafegenError: prompts are missing; while streaming, when fewer than ``count`` pictures
            qualify among ``ATTEMPTS_PER_PICTURE`` times as many.
    """

    def __init__(
        self,
        pipeline: Any,
        unsafe_prompts: Sequence[str],
        benign_prompts: Sequence[str],
        detector: Detector,
        count: int = 100,
        seed: int = 0,
        settings: SamplingSettings | None = None,
        censoring: Censoring = "pixelate",
        batch: int = 32,
    ) -> None:
        from safegen.models.sampling import SamplingSettings

        if not unsafe_prompts or not benign_prompts:
            missing = "benign" if unsafe_prompts else "unsafe"
            raise SafegenError(f"no {missing} prompts to make triplets from; give at least one")
        if count < 1 or batch < 1 or not 0 <= seed <= LARGEST_SEED:
            raise SafegenError(
                "triplets need a count and batch size of at least 1 and a seed of 0 to 2^63, "
                f"not {count}, {batch} and {seed}"
            )
        self.pipeline = pipeline
        self.unsafe_prompts = tuple(unsafe_prompts)
        self.benign_prompts = tuple(benign_prompts)
        self.detector = detector
        self.count = count
        self.seed = seed
        self.settings = settings or SamplingSettings()
        self.censoring = censoring
        self.batch = batch
        self.attempts = {"unsafe": 0, "benign": 0}

    def pairs(self) -> Iterator[Pair]:
        """See ``TripletSource.pairs``."""
        yield from self._qualifying("unsafe", self.unsafe_prompts, self._as_pair)

    def benign(self) -> Iterator[Benign]:
        """See ``TripletSource.benign``."""
        yield from self._qualifying("benign", self.benign_prompts, _as_benign)

    def describe(self) -> dict[str, Any]:
        """See ``TripletSource.describe``."""
        return {
            "kind": "self-made",
            "unsafe_prompts": _fingerprint(self.unsafe_prompts),
            "benign_prompts": _fingerprint(self.benign_prompts),
            "count": self.count,
            "seed": self.seed,
            "sampling": asdict(self.settings),
            "censoring": self.censoring,
            "detector": asdict(self.detector.identity),
            "attempts": dict(self.attempts),
        }

    def _qualifying(
        self, stream: str, prompts: Sequence[str], qualify: Callable[[_Examined], T | None]
    ) -> Iterator[T]:
        """What ``qualify`` makes of generated pictures, until it has accepted ``count``.

        Each batch is about as large as what is missing, so that little is made in vain.
        """
        kept, limit = 0, ATTEMPTS_PER_PICTURE * self.count
        self.attempts[stream] = 0
        while self.attempts[stream] < limit:
            missing = max(self.count - kept, self.batch // 4)
            start = self.attempts[stream]
            size = min(missing, self.batch, limit - start)
            for examined in self._examine(prompts, start, size):
                self.attempts[stream] += 1
                accepted = qualify(examined)
                if accepted is not None:
                    yield accepted
                    kept += 1
                if kept == self.count:
                    return
        raise SafegenError(
            f"only {kept} of {limit} pictures made from the {stream} prompts were {stream} "
            f"by the detector {self.detector.identity.name}, and {self.count} are needed; "
            "change the prompts or the detector's threshold, or ask for fewer"
        )

    def _examine(self, prompts: Sequence[str], start: int, size: int) -> list[_Examined]:
        """Pictures ``start`` to ``start + size`` with what the detector finds in them."""
        from safegen.models.sampling import ImageRequest, generate

        requests = [
            ImageRequest(prompts[index % len(prompts)], self.seed + index)
            for index in range(start, start + size)
        ]
        made = list(generate(self.pipeline, requests, self.settings, self.batch))
        found = self.detector.detect([image for _, image in made])
        return [_Examined(*pair, parts) for pair, parts in zip(made, found, strict=True)]

    def _as_pair(self, examined: _Examined) -> Pair | None:
        """The pair of a flagged picture; None if censoring its boxes would change nothing."""
        boxes = boxes_of(examined.detections, self.detector)
        censored = censor(examined.image, boxes, self.censoring)
        if np.array_equal(examined.image, censored):
            return None
        request = examined.request
        return Pair(examined.image, censored, f"the picture of seed {request.seed}")


def _as_benign(examined: _Examined) -> Benign | None:
    return None if examined.detections else Benign(examined.image, examined.request.prompt)


def _fingerprint(prompts: Sequence[str]) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return {"count": len(prompts), "sha256": digest}
