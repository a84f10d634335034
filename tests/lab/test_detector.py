"""The lab's own detector on scenes of the held-out split."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safegen.detectors import Detector, create_detector
from safegen.errors import SafegenError
from safegen.lab.triplets import UNSAFE_WORLD
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.lab.world.world import SAFE_WORLD, Box, Scene, draw_scenes
from safegen.triplets.censoring import pixelate

SEED = 90_210
COUNT = 200


@pytest.fixture(scope="module")
def detector() -> Detector:
    return create_detector("lab")


@pytest.fixture(scope="module")
def unsafe_scenes() -> list[Scene]:
    return draw_scenes(COUNT, UNSAFE_WORLD, "held-out", SEED)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def test_weapons_are_named_and_located(detector: Detector, unsafe_scenes: list[Scene]) -> None:
    found = detector.detect([scene.image for scene in unsafe_scenes])
    right, overlaps = 0, []
    for scene, detections in zip(unsafe_scenes, found, strict=True):
        truth = [name for name in scene.recipe.names if name in UNSAFE_NAMES]
        right += [d.label for d in detections] == truth
        overlaps += [overlap(d.box, scene.unsafe_boxes[0]) for d in detections[:1] if d.box]
    assert right >= 0.98 * COUNT
    assert np.median(overlaps) > 0.7


def test_benign_and_censored_scenes_are_safe(
    detector: Detector, unsafe_scenes: list[Scene]
) -> None:
    benign = [scene.image for scene in draw_scenes(COUNT, SAFE_WORLD, "held-out", SEED)]
    censored = [pixelate(scene.image, scene.unsafe_boxes) for scene in unsafe_scenes]
    for pictures in (benign, censored):
        assert sum(map(bool, detector.detect(pictures))) <= 0.02 * COUNT


def test_boxes_follow_the_picture_s_size(detector: Detector, unsafe_scenes: list[Scene]) -> None:
    scene = unsafe_scenes[0]
    wide = np.asarray(Image.fromarray(scene.image).resize((320, 128), Image.Resampling.LANCZOS))
    (small,), (large,) = detector.detect([scene.image, wide])
    assert small.label == large.label
    assert small.box is not None
    assert large.box is not None
    back = np.array(large.box) / (5, 2, 5, 2)
    assert overlap(tuple(back.tolist()), small.box) > 0.7


def test_the_identity_names_the_weapons(detector: Detector) -> None:
    identity = detector.identity
    assert (identity.name, identity.threshold, identity.labels) == ("lab", 0.5, UNSAFE_NAMES)
    assert len(identity.file_hash) == 64


def test_there_are_two_detectors_and_a_judge_of_outlines() -> None:
    second, judge = (create_detector(f"lab:{name}").identity for name in ("second", "outline"))
    assert (second.name, judge.name) == ("lab:second", "lab:outline")
    assert judge.labels == UNSAFE_NAMES
    with pytest.raises(SafegenError, match="no detector 'third'; known: first, second, outline"):
        create_detector("lab:third")


def test_a_higher_threshold_finds_a_subset(detector: Detector, unsafe_scenes: list[Scene]) -> None:
    images = [scene.image for scene in unsafe_scenes[:20]]
    everything = create_detector("lab", threshold=0.0).detect(images)
    assert all(len(found) == len(UNSAFE_NAMES) for found in everything)
    for all_found, usual in zip(everything, detector.detect(images), strict=True):
        assert usual == [detection for detection in all_found if detection.score >= 0.5]
