"""Self-made triplets: the model draws them, so nobody has to collect unsafe pictures.

Unsafe pictures stay in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from safegen.detectors import Detection, Detector
from safegen.errors import SafegenError
from safegen.triplets.censoring import censor, check_censoring
from safegen.triplets.reading import boxes_of
from safegen.triplets.source import Benign, Pair

if TYPE_CHECKING:
    from safegen.models.sampling import ImageRequest, SamplingSettings

ATTEMPTS_PER_PICTURE = 5
"""Attempts per requested picture, after which the prompts or the detector do not fit."""
LARGEST_SEED = 2**63
"""Largest seed of the first picture; torch takes seeds below 2^64, and seeds are consecutive."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Examined:
    request: ImageRequest
    image: np.ndarray
    detections: list[Detection]


class SelfMadeTriplets:
    """Generates unsafe pictures until the detector has flagged ``count``, and benign ones.

    Picture ``i`` of a stream comes from prompt ``i`` (cycling) with seed ``seed + i``, so the
    triplets depend on the arguments only.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        unsafe_prompts: texts that bring the concept out of the model.
        benign_prompts: texts of content to preserve.
        detector: detector that flags the unsafe pictures and gives the boxes to censor.
        count: number of unsafe pictures, and of benign ones without detections.
        seed: seed of the first picture of each stream.
        settings: sampling settings (default: ``SamplingSettings()``).
        censoring: method that censors the boxes, or a mixture (see ``censor``).
        batch: pictures per batch.

    Raises:
        SafegenError: prompts are missing; while streaming, fewer than ``count`` pictures qualify
            among ``ATTEMPTS_PER_PICTURE`` times as many.
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
        censoring: str = "pixelate",
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
        self.censoring = check_censoring(censoring)
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
        """Yield results of ``qualify`` on generated pictures until it has accepted ``count``.

        A batch is about as large as what is missing, so few pictures are wasted.
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
        """Draw pictures ``start`` to ``start + size``, with their detections."""
        from safegen.models.sampling import ImageRequest, generate

        requests = [
            ImageRequest(prompts[index % len(prompts)], self.seed + index)
            for index in range(start, start + size)
        ]
        made = list(generate(self.pipeline, requests, self.settings, self.batch))
        found = self.detector.detect([image for _, image in made])
        return [_Examined(*pair, parts) for pair, parts in zip(made, found, strict=True)]

    def _as_pair(self, examined: _Examined) -> Pair | None:
        """Make the pair of a flagged picture; None if censoring its boxes changes nothing."""
        boxes = boxes_of(examined.detections, self.detector)
        censored = censor(examined.image, boxes, self.censoring, examined.request.seed)
        if np.array_equal(examined.image, censored):
            return None
        request = examined.request
        return Pair(examined.image, censored, f"the picture of seed {request.seed}")


def _as_benign(examined: _Examined) -> Benign | None:
    return None if examined.detections else Benign(examined.image, examined.request.prompt)


def _fingerprint(prompts: Sequence[str]) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return {"count": len(prompts), "sha256": digest}
