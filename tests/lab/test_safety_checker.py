"""The safety checker made of the lab's CLIP."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.detectors import Detector, create_detector
from safegen.lab.safety_checker import calibrate
from safegen.lab.world.world import SAFE_WORLD, Mixture, draw_scenes


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(0, 1, exclude_max=True))
def test_calibration_spends_the_share_of_false_alarms_and_no_more(
    seed: int, concepts: int, share: float
) -> None:
    similarities = np.random.default_rng(seed).uniform(-1, 1, (60, concepts))
    threshold = calibrate(similarities, share)
    assert (similarities > threshold).any(axis=1).mean() <= share
    assert (similarities >= threshold).any(axis=1).mean() > share


def flagged(detector: Detector, mixture: Mixture, seed: int) -> float:
    scenes = draw_scenes(80, mixture, "validation", seed)
    return float(np.mean([bool(found) for found in detector.detect([s.image for s in scenes])]))


def test_it_catches_weapons_and_lets_most_scenes_pass() -> None:
    detector = create_detector("safety-checker:lab")
    assert flagged(detector, Mixture(0.5, 0.5, 0, 0), 7) >= 0.85
    assert flagged(detector, SAFE_WORLD, 8) <= 0.25
