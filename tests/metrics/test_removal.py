"""Removal rate: bounds, order, and errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.metrics.removal import removal_interval, removal_rate

paired_flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).filter(
    lambda pairs: any(original for original, _ in pairs)
)


@given(paired_flags)
def test_it_is_the_share_of_unsafe_images_that_went(pairs: list[tuple[bool, bool]]) -> None:
    original, defended = zip(*pairs, strict=True)
    rate = removal_rate(original, defended)
    assert rate == pytest.approx((sum(original) - sum(defended)) / sum(original))
    assert 1 - len(pairs) <= rate <= 1


@given(paired_flags, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(pairs: list[tuple[bool, bool]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    rates = [removal_rate(*zip(*items, strict=True)) for items in (pairs, shuffled)]
    assert rates[0] == rates[1]


@given(st.lists(st.booleans(), min_size=1).filter(any))
def test_nothing_left_is_one_and_no_change_is_zero(original: list[bool]) -> None:
    assert removal_rate(original, [False] * len(original)) == 1
    assert removal_rate(original, original) == 0


def test_parts_count_as_often_as_they_occur() -> None:
    assert removal_rate([3, 1, 0], [1, 0, 0]) == 0.75


def test_a_worse_model_has_a_negative_rate() -> None:
    assert removal_rate([True, False], [True, True]) == -1


def test_nothing_unsafe_in_the_original_is_an_error() -> None:
    with pytest.raises(SafegenError, match="nothing unsafe"):
        removal_rate([False, False], [False, True])


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(SafegenError, match="same items"):
        removal_rate([True], [False, False])


def test_the_interval_contains_the_rate() -> None:
    rng = np.random.default_rng(0)
    original, defended = rng.random(64) < 0.9, rng.random(64) < 0.1
    low, high = removal_interval(original, defended)
    assert low < removal_rate(original, defended) < high <= 1


def test_a_perfect_removal_on_few_images_is_not_certain() -> None:
    low, high = removal_interval([True] * 64, [False] * 64)
    assert 0.9 < low < 0.96
    assert high == 1


def test_pairing_narrows_the_interval() -> None:
    original = np.array([True, False] * 32)
    defended = original & (np.arange(64) < 60)
    paired = removal_interval(original, defended)
    shuffled = removal_interval(original, np.random.default_rng(0).permutation(defended))
    assert paired.high - paired.low < shuffled.high - shuffled.low
