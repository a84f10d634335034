"""Shapes: parts of scenes, and pictures composed of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import OBJECTS
from safegen.lab.world.shapes import Shapes, as_images, compose, draw_shapes
from safegen.lab.world.world import Mixture

COUNT = 80


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return draw_shapes(COUNT, Mixture(), "held-out", seed=11)


def test_parts_lie_in_their_boxes(shapes: Shapes) -> None:
    for recipe, parts, boxes in zip(shapes.recipes, shapes.parts, shapes.boxes, strict=True):
        assert recipe.split == "held-out"
        assert len(boxes) == len(recipe.names)
        for part, (left, top, right, bottom) in zip(parts, boxes, strict=False):
            rows, columns = np.nonzero(part[3].numpy())
            assert left - 1 <= columns.min() <= columns.max() <= right + 1
            assert top - 1 <= rows.min() <= rows.max() <= bottom + 1
            assert (part[4] <= part[3]).all()
        assert not parts[len(boxes) :].any()


def test_labels_are_what_is_shown(shapes: Shapes) -> None:
    made = compose(shapes, torch.arange(COUNT), torch.Generator().manual_seed(0))
    assert made.pixels.shape == (COUNT, 3, 64, 64)
    assert 0 <= made.pixels.min() <= made.pixels.max() <= 1
    for recipe, objects, places in zip(shapes.recipes, made.objects, made.places, strict=True):
        shown = {name for name, value in zip(OBJECTS, objects, strict=True) if value != 0}
        assert shown <= set(recipe.names)
        place = [name for name, value in zip(BACKGROUNDS, places, strict=True) if value]
        assert place in ([], [recipe.background])
    assert 0.3 * COUNT < (made.objects == 1).any(dim=1).sum() < 0.95 * COUNT


def test_a_seed_gives_the_same_pictures(shapes: Shapes) -> None:
    rows = torch.arange(8)
    first, again = (compose(shapes, rows, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.pixels.equal(again.pixels)
    few = draw_shapes(3, Mixture(), "held-out", seed=11)
    assert few.parts.equal(shapes.parts[:3])


def test_pictures_are_rounded() -> None:
    (image,) = as_images(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 128, 255]]]
