"""Fréchet distance: laws, and parity with SciPy's matrix square root."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from safegen.errors import SafegenError
from safegen.statistics.frechet import frechet_contributions, frechet_distance

sizes = st.integers(2, 30)
seeds = st.integers(0, 2**32 - 1)


def features(seed: int, count: int, dimensions: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions))
    return rng.normal(size=(count, dimensions)) @ mixing + rng.normal(size=dimensions)


def by_matrix_square_root(first: np.ndarray, second: np.ndarray) -> float:
    cov_1, cov_2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = np.real(sqrtm(cov_1 @ cov_2))
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(cov_1 + cov_2 - 2 * root))


@settings(deadline=None)
@given(seeds, st.integers(2, 12))
def test_it_is_the_formula_with_the_matrix_square_root(seed: int, dimensions: int) -> None:
    first, second = features(seed, 60, dimensions), features(seed + 1, 45, dimensions)
    expected = by_matrix_square_root(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(seeds, sizes, sizes, st.integers(1, 40))
def test_it_is_symmetric_and_not_negative(seed: int, n: int, m: int, dimensions: int) -> None:
    first, second = features(seed, n, dimensions), features(seed + 1, m, dimensions)
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there == pytest.approx(back, rel=1e-9, abs=1e-9)
    assert there >= 0


@given(seeds, sizes, st.integers(1, 40))
def test_it_is_zero_on_itself_in_any_order(seed: int, n: int, dimensions: int) -> None:
    first = features(seed, n, dimensions)
    scale = np.square(first).mean()
    assert frechet_distance(first, first[::-1]) == pytest.approx(0, abs=1e-10 * scale * dimensions)


@given(seeds, sizes, st.integers(1, 20))
def test_a_shift_adds_its_square_and_nothing_else(seed: int, n: int, dimensions: int) -> None:
    first = features(seed, n, dimensions)
    shift = np.random.default_rng(seed).normal(size=dimensions)
    assert frechet_distance(first, first + shift) == pytest.approx(shift @ shift, rel=1e-6)


@given(seeds, st.floats(0.1, 10))
def test_scaling_one_dimension_gives_the_difference_of_deviations(seed: int, scale: float) -> None:
    first = features(seed, 20, 1)
    first = first - first.mean()
    expected = (first.std(ddof=1) * (scale - 1)) ** 2
    assert frechet_distance(first, first * scale) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2"),
        (np.zeros((5, 3)), np.zeros(3), "at least 2"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "finite"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "one dimension"),
    ],
)
def test_bad_features_are_refused(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        frechet_distance(first, second)


@given(seeds, sizes, st.integers(1, 40))
def test_contributions_mean_the_distance_in_any_order(seed: int, n: int, dimensions: int) -> None:
    first, second = features(seed, n, dimensions), features(seed + 1, 30, dimensions)
    found = frechet_contributions(first, second)
    scale = np.square(first).sum() + np.square(second).sum()
    assert found.mean() == pytest.approx(frechet_distance(first, second), abs=1e-9 * scale)
    backwards = frechet_contributions(first[::-1], second)[::-1]
    np.testing.assert_allclose(found, backwards, atol=1e-7 * scale)


@given(seeds, st.integers(20, 60), st.integers(1, 8))
def test_a_contribution_is_the_derivative_by_the_samples_weight(
    seed: int, n: int, dimensions: int
) -> None:
    first, second = features(seed, n, dimensions), features(seed + 1, 40, dimensions)
    found = frechet_contributions(first, second)
    index, step = seed % n, 1e-5
    up, down = (weighted_distance(first, second, index, sign * step) for sign in (1, -1))
    derivative = (up - down) / (2 * step)
    scale = np.abs(found - found.mean()).max() + 1
    # At the first order (N - 1) / N of the covariance is no weight's business.
    assert n * derivative == pytest.approx(found[index] - found.mean(), abs=2e-3 * scale)


def weighted_distance(first: np.ndarray, second: np.ndarray, index: int, extra: float) -> float:
    """The distance with one sample's weight changed, by the formula in SciPy."""
    n = len(first)
    weights = np.ones(n)
    weights[index] += extra
    weights /= weights.sum()
    mean = weights @ first
    centred = first - mean
    cov_1 = (centred * weights[:, None]).T @ centred * n / (n - 1)
    cov_2 = np.atleast_2d(np.cov(second, rowvar=False))
    root = np.real(sqrtm(cov_1 @ cov_2))
    shift = mean - second.mean(axis=0)
    return float(shift @ shift + np.trace(cov_1 + cov_2 - 2 * np.atleast_2d(root)))


def test_contributions_spread_as_the_distance_does_or_more() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(500, 6))
    drawn = 1.3 * rng.normal(size=(200, 80, 6)) + 0.4
    distances = [frechet_distance(each, real) for each in drawn]
    errors = [frechet_contributions(each, real).std(ddof=1) / np.sqrt(80) for each in drawn[:40]]
    assert 0.9 * np.std(distances) < np.mean(errors) < 1.6 * np.std(distances)
