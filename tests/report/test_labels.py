"""Labels: near their points, inside, and legible."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.report.labels import MARKER, Box, place_labels

BOUNDS = Box(0, 0, 340, 260)
SIZE = (60.0, 11.0)
places = st.tuples(st.floats(20, 320), st.floats(20, 240))


@given(st.lists(places, min_size=1, max_size=6))
def test_few_labels_are_clear_of_each_other_and_inside(points: list[tuple[float, float]]) -> None:
    boxes = place_labels(points, [SIZE] * len(points), BOUNDS)
    assert all(
        one.overlap(other) < 0.1 * one.area for one, other in itertools.combinations(boxes, 2)
    )
    assert all(box.overlap(BOUNDS) > 0.9 * box.area for box in boxes)
    assert all((box.right - box.left, box.top - box.bottom) == pytest.approx(SIZE) for box in boxes)


def test_a_lone_label_stands_right_beside_its_point() -> None:
    ((left, bottom, _, top),) = place_labels([(100, 100)], [SIZE], BOUNDS)
    assert MARKER < left - 100 < 2 * MARKER
    assert (bottom + top) / 2 == pytest.approx(100)


def test_at_the_right_edge_it_goes_elsewhere() -> None:
    (box,) = place_labels([(338, 130)], [SIZE], BOUNDS)
    assert box.overlap(BOUNDS) == pytest.approx(box.area)


def test_it_keeps_off_lines_and_other_points() -> None:
    line = Box(60, 99, 200, 101)
    points = [(100.0, 100.0), (106.0, 108.0)]
    boxes = place_labels(points, [SIZE] * 2, BOUNDS, [line])
    for box in boxes:
        assert box.overlap(line) == 0
        for x, y in points:
            assert not (box.left < x < box.right and box.bottom < y < box.top)


def test_a_crowd_stays_legible() -> None:
    rng = np.random.default_rng(3)
    points = [(float(x), float(y)) for x, y in rng.normal((250, 180), 25, (12, 2))]
    boxes = place_labels(points, [SIZE] * 12, BOUNDS)
    hidden = sum(one.overlap(other) for one, other in itertools.combinations(boxes, 2))
    assert hidden < 0.02 * sum(box.area for box in boxes)
