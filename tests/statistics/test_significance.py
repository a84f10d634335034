"""Paired tests: parity with SciPy and with all flips, and what a p-value must obey."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safegen.errors import SafegenError
from safegen.statistics.significance import FLIPS, mcnemar, sign_flip_test

paired_flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)
differences = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(paired_flags)
def test_mcnemar_is_scipys_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    before, after = zip(*pairs, strict=True)
    gone = sum(was and not now for was, now in pairs)
    changed = sum(was != now for was, now in pairs)
    expected = stats.binomtest(gone, changed).pvalue if changed else 1.0
    assert mcnemar(before, after) == pytest.approx(expected, rel=1e-9)


@given(paired_flags, st.randoms(use_true_random=False))
def test_mcnemar_knows_neither_direction_nor_order(
    pairs: list[tuple[bool, bool]], random: object
) -> None:
    before, after = zip(*pairs, strict=True)
    p_value = mcnemar(before, after)
    assert 0 <= p_value <= 1
    assert mcnemar(after, before) == p_value
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mcnemar(*zip(*shuffled, strict=True)) == p_value
    assert mcnemar(before, before) == 1


def test_mcnemar_refuses_other_items() -> None:
    with pytest.raises(SafegenError, match="same items"):
        mcnemar([True, False], [True])


@settings(max_examples=25)
@given(differences, st.randoms(use_true_random=False))
def test_flipping_knows_neither_direction_nor_order(found: list[float], random: object) -> None:
    p_value = sign_flip_test(found)
    assert 1 / (FLIPS + 1) <= p_value <= 1
    assert sign_flip_test([-each for each in found]) == p_value
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sign_flip_test(shuffled) == p_value
    assert sign_flip_test([*found, 0.0]) == p_value  # who did not change says nothing


@settings(max_examples=25)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=9)
    | st.lists(st.integers(-1, 1).map(float), min_size=8, max_size=12)
)
def test_flipping_agrees_with_all_flips(found: list[float]) -> None:
    signs = np.array(list(product((-1, 1), repeat=len(found))))
    sums = np.abs(signs @ np.abs(found))
    exact = float(np.mean(sums >= abs(sum(found)) - 1e-9 * np.abs(found).sum()))
    deviation = np.sqrt(exact * (1 - exact) / FLIPS)
    assert sign_flip_test(found) == pytest.approx(exact, abs=5 * deviation + 2 / FLIPS)


def test_repeated_differences_are_drawn_as_the_same_ones_each() -> None:
    repeated = np.repeat([0.5, -0.5], [40, 24])
    jittered = repeated + np.linspace(0, 1e-12, 64)  # no two alike, so drawn one by one
    assert sign_flip_test(repeated) == pytest.approx(sign_flip_test(jittered), abs=0.01)


def test_flipping_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p_values = [sign_flip_test(sample) for sample in rng.normal(size=(300, 24))]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09
    assert sign_flip_test(rng.normal(loc=1, size=64)) == 1 / (FLIPS + 1)


def test_no_difference_is_no_evidence_and_nan_no_difference() -> None:
    assert sign_flip_test(np.zeros(5)) == 1
    with pytest.raises(SafegenError, match="finite"):
        sign_flip_test([0.0, float("nan")])
