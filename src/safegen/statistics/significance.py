"""Paired tests of whether a defended model differs from the original on the same prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from safegen.errors import SafegenError

FLIPS = 9999
"""Random flips of a sign-flip test; its smallest p-value is 1 / (FLIPS + 1)."""
_PART = 2_000_000


def mcnemar(before: ArrayLike, after: ArrayLike) -> float:
    """Exact two-sided p-value of McNemar's test on flags (N,) of the same, independent items.

    Of the b + c items whose flag changed, as many should have changed one way as the other:
    p = min(1, 2 P(X <= min(b, c))) with X binomial (b + c, 1/2). 1 where none changed.
    """
    first, second = np.asarray(before, bool), np.asarray(after, bool)
    if first.shape != second.shape or first.ndim != 1:
        raise SafegenError(
            f"a paired test compares the same items: got {first.shape} and {second.shape}"
        )
    gone, new = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, float(2 * bdtr(min(gone, new), gone + new, 0.5)))


def sign_flip_test(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test on differences (N,) of independent items.

    If the two models did not differ, each difference would as likely have the other sign. So
    p = (1 + flips with a sum at least as far from 0 as the one found) / (1 + ``FLIPS``).

    Raises:
        SafegenError: a difference is not finite.
    """
    found = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(found).all():
        raise SafegenError("a paired test needs finite differences")
    sizes = np.sort(np.abs(found[found != 0]))
    if len(sizes) == 0:
        return 1.0
    total = sizes.sum()
    positive = np.concatenate(list(_random_subset_sums(sizes, np.random.default_rng(seed))))
    # Ties count, and sums in another order differ by a rounding error.
    extreme = np.abs(2 * positive - total) >= abs(found.sum()) - 1e-9 * total
    return float((1 + extreme.sum()) / (1 + FLIPS))


def _random_subset_sums(sizes: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield sums of random halves of the sizes (N,), ``FLIPS`` in all."""
    kinds, counts = np.unique(sizes, return_counts=True)
    if 8 * len(kinds) <= len(sizes):
        yield rng.binomial(counts, 0.5, size=(FLIPS, len(kinds))) @ kinds
        return
    width = -(-len(sizes) // 8)
    rows = max(1, _PART // (8 * width))
    for start in range(0, FLIPS, rows):
        shape = (min(rows, FLIPS - start), width)
        chosen = np.unpackbits(rng.integers(256, size=shape, dtype=np.uint8), axis=1)
        yield chosen[:, : len(sizes)].astype(np.float64) @ sizes
