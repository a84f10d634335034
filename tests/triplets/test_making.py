"""Triplets made by a model: a tiny real pipeline, and a real detector of red."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegen.detectors.onnx import OnnxDetector
from safegen.errors import SafegenError
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.triplets.censoring import pixelate
from safegen.triplets.making import ATTEMPTS_PER_PICTURE, SelfMadeTriplets

QUICK = SamplingSettings(steps=2, guidance_scale=1.0)
PROMPTS = ("a knife", "the knife in the snow", "a knife and a cat")
RedDetector = Callable[..., OnnxDetector]


def redness(images: list[np.ndarray]) -> np.ndarray:
    return np.array([image[..., 0].mean() / 255 for image in images])


@pytest.fixture(scope="module")
def made(build_pipeline: Callable[..., Any]) -> list[np.ndarray]:
    """The pictures of PROMPTS with seeds 7, 8, ..."""
    requests = [ImageRequest(PROMPTS[i % 3], 7 + i) for i in range(40)]
    return [image for _, image in generate(build_pipeline(), requests, QUICK)]


@pytest.fixture
def half_red(made: list[np.ndarray], red_detector: RedDetector) -> OnnxDetector:
    """Flags about every second picture of the tiny model."""
    return red_detector(threshold=float(np.median(redness(made))))


def source(pipeline: Any, detector: OnnxDetector, **options: Any) -> SelfMadeTriplets:
    given = {"count": 8, "seed": 7, "settings": QUICK, **options}
    return SelfMadeTriplets(pipeline, PROMPTS, ("the house",), detector, **given)


def test_flagged_pictures_are_kept_in_order_and_censored(
    tiny_pipeline: Any, half_red: OnnxDetector, made: list[np.ndarray]
) -> None:
    flagged = [image for image in made if half_red.detect([image])[0]]
    self_made = source(tiny_pipeline, half_red, batch=4)
    pairs = list(self_made.pairs())
    assert 8 < self_made.attempts["unsafe"] < 40
    for pair, image in zip(pairs, flagged[:8], strict=True):
        assert np.abs(pair.unsafe.astype(int) - image).max() <= 1
        ((found,),) = half_red.detect([pair.unsafe])
        assert found.box is not None
        assert np.array_equal(pair.censored, pixelate(pair.unsafe, [found.box]))


def test_benign_pictures_are_those_in_which_nothing_is_found(
    tiny_pipeline: Any, half_red: OnnxDetector
) -> None:
    pictures = list(source(tiny_pipeline, half_red).benign())
    assert len(pictures) == 8
    assert {picture.caption for picture in pictures} == {"the house"}
    assert half_red.detect([picture.image for picture in pictures]) == [[]] * 8


def test_the_batch_size_does_not_change_the_triplets(
    tiny_pipeline: Any, half_red: OnnxDetector
) -> None:
    one, many = (source(tiny_pipeline, half_red, batch=b) for b in (1, 16))
    pairs = list(zip(one.pairs(), many.pairs(), strict=True))
    assert [a.name for a, _ in pairs] == [b.name for _, b in pairs]
    assert one.attempts == many.attempts
    for a, b in pairs:
        assert np.abs(a.unsafe.astype(int) - b.unsafe).max() <= 1


def test_it_gives_up_after_a_stated_number_of_attempts(
    tiny_pipeline: Any, red_detector: RedDetector
) -> None:
    blind = source(tiny_pipeline, red_detector(threshold=1.0), count=3)
    message = rf"only 0 of {3 * ATTEMPTS_PER_PICTURE} pictures .* unsafe .* 3 are needed"
    with pytest.raises(SafegenError, match=message):
        list(blind.pairs())
    jumpy = source(tiny_pipeline, red_detector(threshold=0.0), count=2)
    with pytest.raises(SafegenError, match=r"only 0 of 10 pictures .* benign"):
        list(jumpy.benign())


def test_nothing_is_written_to_disk(tiny_pipeline: Any, half_red: OnnxDetector) -> None:
    written: list[Path] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and set(str(arguments[1])) & set("wax+"):
            written.append(arguments[0])

    sys.addaudithook(watch)
    self_made = source(tiny_pipeline, half_red, count=2)
    assert len([*self_made.pairs(), *self_made.benign()]) == 4
    watching = False
    assert written == []


def test_the_description_is_json_and_tells_the_attempts(
    tiny_pipeline: Any, half_red: OnnxDetector
) -> None:
    self_made = source(tiny_pipeline, half_red, count=2)
    made_pairs, made_benign = list(self_made.pairs()), list(self_made.benign())
    described = json.loads(json.dumps(self_made.describe()))
    assert len(made_pairs) == len(made_benign) == described["count"]
    assert described["sampling"]["steps"] == 2
    assert described["attempts"] == self_made.attempts
    assert described["unsafe_prompts"]["count"] == 3
    assert described["detector"]["threshold"] == half_red.identity.threshold


@pytest.mark.parametrize("options", [{"count": 0}, {"batch": 0}, {"seed": -1}])
def test_numbers_that_make_no_sense_are_refused(
    tiny_pipeline: Any, half_red: OnnxDetector, options: dict[str, int]
) -> None:
    with pytest.raises(SafegenError, match="at least"):
        source(tiny_pipeline, half_red, **options)


def test_missing_prompts_are_refused(tiny_pipeline: Any, half_red: OnnxDetector) -> None:
    with pytest.raises(SafegenError, match="no benign prompts"):
        SelfMadeTriplets(tiny_pipeline, ["a"], [], half_red)
