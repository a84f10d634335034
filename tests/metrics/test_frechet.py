"""Fréchet distance: laws, and parity with SciPy's matrix square root."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from safegen.errors import SafegenError
from safegen.metrics.frechet import frechet_distance

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
