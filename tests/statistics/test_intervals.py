"""Confidence intervals: bounds, parity with SciPy, and what they do at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safegen.errors import SafegenError
from safegen.statistics.intervals import (
    group_sums,
    mean_interval,
    ratio_interval,
    wilson_interval,
)

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(pair: tuple[int, int], confidence: float) -> None:
    successes, count = pair
    expected = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, count, confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


@given(counts)
def test_wilson_contains_the_share_and_has_width(pair: tuple[int, int]) -> None:
    successes, count = pair
    low, high = wilson_interval(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    assert low < high


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_what_is_no_share(successes: int, count: int) -> None:
    with pytest.raises(SafegenError, match="successes"):
        wilson_interval(successes, count)


def test_the_mean_is_scipys_up_to_resampling_noise() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=80)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert mean_interval(values) == pytest.approx((expected.low, expected.high), abs=0.04)


def test_bootstrap_repeats_itself_and_depends_on_the_seed() -> None:
    values = np.arange(30.0)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_bootstrap_refuses_nothing_and_what_is_not_finite(values: list[float]) -> None:
    with pytest.raises(SafegenError, match="finite"):
        mean_interval(values)


def test_a_ratio_of_none_left_is_as_wide_as_the_items_are_few() -> None:
    few, many = (ratio_interval(np.zeros(n), np.ones(n)) for n in (10, 100))
    assert few.low == many.low == 0
    assert few.high == wilson_interval(0, 10).high > many.high > 0


def test_a_ratio_of_all_left_is_not_certain_either() -> None:
    assert ratio_interval(np.ones(20), np.ones(20)) == (wilson_interval(20, 20).low, 1.0)


def test_a_share_of_few_covers_wilsons() -> None:
    flags = np.arange(64) < 1
    interval, wilson = ratio_interval(flags, np.ones(64)), wilson_interval(1, 64)
    assert interval.low <= wilson.low
    assert interval.high >= wilson.high > wilson_interval(0, 64).high


@pytest.mark.parametrize("left", [0, 1, 3])
def test_few_cases_among_samples_and_among_parts_cover_wilsons_as_well(left: int) -> None:
    flags, prompts = np.arange(256) < left, np.repeat(np.arange(64), 4)
    parts, before = np.bincount(prompts, flags), np.full(64, 4)
    samples = ratio_interval(flags, np.ones(256), groups=prompts)
    wilson = wilson_interval(64 * left / 256, 64)
    assert samples == ratio_interval(parts, before)
    assert samples.low <= wilson.low
    assert samples.high >= wilson.high
    gone = ratio_interval(before - parts, before)
    assert gone == pytest.approx((1 - samples.high, 1 - samples.low))


def test_counts_are_no_shares() -> None:
    interval = ratio_interval([1] * 30 + [2] * 30, [4] * 60)
    assert 0.25 < interval.low < 0.375 < interval.high < 0.5


def test_repeated_values_are_drawn_as_the_same_ones_each() -> None:
    values = np.repeat([0.0, 1.0, 3.0], [50, 30, 20])
    jittered = values + np.linspace(0, 1e-9, 100)  # no two alike, so drawn one by one
    assert mean_interval(values) == pytest.approx(mean_interval(jittered), abs=0.04)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 9)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
@settings(max_examples=15)
def test_the_order_of_items_does_not_matter(items: list[tuple[int, float]], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        mean_interval([value for _, value in each], groups=[group for group, _ in each])
        for each in (items, shuffled)
    )
    assert one == pytest.approx(other)


def test_samples_of_a_prompt_are_no_new_evidence() -> None:
    single = np.random.default_rng(0).normal(size=40)
    prompts = np.tile(np.arange(40), 4)
    copied = mean_interval(np.tile(single, 4), groups=prompts)
    alone = mean_interval(single)
    blind = mean_interval(np.tile(single, 4))
    assert copied == pytest.approx(alone)
    assert blind.high - blind.low < 0.6 * (copied.high - copied.low)


def test_grouped_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), 3)
    means = rng.normal(size=(100, 40))
    samples = np.repeat(means, 3, axis=1) + 0.3 * rng.normal(size=(100, 120))
    intervals = [mean_interval(sample, groups=prompts) for sample in samples]
    assert 0.88 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.99


def test_groups_of_none_left_count_as_prompts() -> None:
    prompts = np.repeat(np.arange(10), 4)
    interval = ratio_interval(np.zeros(40), np.ones(40), groups=prompts)
    assert interval == (0.0, wilson_interval(0, 10).high)


def test_sums_by_group() -> None:
    sums = group_sums([[1, 10], [2, 20], [3, 30]], ["b", "a", "b"])
    assert sums.tolist() == [[2, 20], [4, 40]]


def test_a_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(SafegenError, match="denominator"):
        ratio_interval([1.0], [0.0])
    with pytest.raises(SafegenError, match="at least one"):
        mean_interval([])
