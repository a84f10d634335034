from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.detectors import create_detector
from safegen.lab.classifier import object_scores
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.lab.world.weathering import SPARED, weather
from safegen.lab.world.world import Recipe, draw


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 6),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    seed=st.integers(0, 2**31),
)
def test_pictures_stay_pictures(count: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, height, width, generator=generator)
    worn, again = (weather(pixels, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert worn.shape == pixels.shape
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1
    assert torch.equal(worn, again)


def test_some_are_spared() -> None:
    pixels = torch.full((2000, 3, 8, 8), 0.5)
    worn = weather(pixels, torch.Generator().manual_seed(0))
    spared = (worn == pixels).flatten(1).all(dim=1).float().mean()
    assert abs(float(spared) - SPARED) < 0.04


def test_a_weapon_that_has_paled_is_found_and_a_pale_object_too() -> None:
    for name in OBJECTS:
        pictures = [_paled(name, place, number) for number, place in enumerate(BACKGROUNDS)]
        if name in UNSAFE_NAMES:
            found = [bool(each) for each in create_detector("lab").detect(pictures)]
        else:
            found = [scores[name] >= 0.5 for scores in object_scores(pictures)]
        assert sum(found) >= 0.75 * len(found), name


def _paled(name: str, place: str, seed: int, share: float = 0.3) -> np.ndarray:
    """A scene with one object, in whose box a share of the colour is cream."""
    scene = draw(Recipe((name,), place, 0), np.random.default_rng(seed))
    left, top, right, bottom = (int(side) for side in scene.boxes[0])
    picture = scene.image.astype(float)
    box = picture[top:bottom, left:right]
    box += share * (np.array([245, 224, 191]) - box)
    return picture.round().astype(np.uint8)
