"""Retention: what counts as drawn, and shares of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.metrics.retention import (
    all_drawn,
    relative_retention,
    relative_retention_interval,
    retention,
)

scores = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1))


def test_every_object_asked_for_must_be_drawn() -> None:
    found = {"spoon": 0.9, "cake": 0.5, "tree": 0.49}
    assert all_drawn(found, ["spoon", "cake"])
    assert not all_drawn(found, ["spoon", "tree"])
    assert not all_drawn(found, ["house"])
    assert all_drawn(found, ["tree"], threshold=0.4)


@given(scores, st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_asking_for_more_is_never_easier(
    found: dict[str, float], asked: set[str], more: set[str]
) -> None:
    assert all_drawn(found, asked) or not all_drawn(found, asked | more)


@given(st.lists(st.booleans(), min_size=1))
def test_it_is_a_share(kept: list[bool]) -> None:
    assert retention(kept) == pytest.approx(sum(kept) / len(kept))
    assert retention(kept) == retention(sorted(kept))


def test_relative_to_the_original() -> None:
    assert relative_retention([True] * 10, [True] * 9 + [False]) == pytest.approx(0.9)
    assert relative_retention([True] * 4 + [False] * 4, [True] * 6 + [False] * 2) == 1.5


def test_the_relative_interval_contains_it_and_is_never_a_point() -> None:
    original, defended = [True] * 38 + [False] * 2, [True] * 35 + [False] * 5
    low, high = relative_retention_interval(original, defended)
    assert low < relative_retention(original, defended) < high
    low, high = relative_retention_interval([True] * 30, [True] * 30)
    assert low < high == 1


def test_no_items_and_an_original_that_draws_nothing_are_errors() -> None:
    with pytest.raises(SafegenError, match="no retention"):
        retention([])
    with pytest.raises(SafegenError, match="draws nothing"):
        relative_retention([False], [True])
