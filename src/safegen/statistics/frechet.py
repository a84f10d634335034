"""Fréchet distance between Gaussian fits of two sets of features (FID, arXiv 1706.08500)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from safegen.errors import SafegenError


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """|mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), with S the sample covariances.

    For any square roots S_i = R_i^T R_i the trace of (S_1 S_2)^(1/2) is the sum of the singular
    values of R_1 R_2^T. R_i comes from a QR decomposition of the centred samples, so nothing is
    squared, no root of a rounding error is taken, and fewer samples than dimensions are no
    trouble. In float64.

    Args:
        first: features (N, D) of one set of pictures, N >= 2.
        second: features (M, D) of the other, M >= 2.

    Returns:
        The distance, at least 0. It shrinks with more samples: compare only equal N and M.

    Raises:
        SafegenError: too few samples, different dimensions, or a value that is not finite.
    """
    one, other = _fits(first, second)
    root_1, root_2 = one.root, other.root
    shift = np.square(one.mean - other.mean).sum()
    cross = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    spread = np.square(root_1).sum() + np.square(root_2).sum() - 2 * cross
    return max(0.0, float(shift + spread))


def frechet_contributions(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Compute what each sample of ``first`` adds to the distance: float64 (N,), of that mean.

    The distance plus its derivative by the sample's weight (the influence function), for
    resampling: a resample's mean is the distance of the resample up to second order. A resample
    itself holds repeats, so it is farther from the other set than new samples would be, by more
    than the interval's width if N is no larger than D; the contributions have no such bias.
    With so few samples they spread too much rather than too little.

    With centred samples C = (x - mu_1) / (N - 1)^(1/2) and C R_2^T = U s V^T, the derivative of
    the trace of (S_1 S_2)^(1/2) by the logarithm of a row's scale is that row's sum of s U^2.

    Args:
        first: features (N, D), N >= 2.
        second: features (M, D), M >= 2.
    """
    one, other = _fits(first, second)
    count = len(one.centred)
    basis, root = np.linalg.qr(one.centred)
    rotation, values, _ = np.linalg.svd(root @ other.root.T, full_matrices=False)
    cross = (np.square(basis @ rotation) * values).sum(axis=1)  # (N,)
    spread = np.square(one.centred).sum(axis=1)  # (N,)
    gap = one.mean - other.mean
    shift = 2 * np.sqrt(count - 1) * (one.centred @ gap)
    influence = shift + count * (spread - cross) - (spread - cross).sum()
    constant = gap @ gap + np.square(other.root).sum()
    distance = constant + spread.sum() - 2 * cross.sum()
    contributions: np.ndarray = distance + influence
    return contributions


class _Fit(NamedTuple):
    """Mean (D,), centred samples C (N, D) with S = C^T C, and their triangle R, S = R^T R."""

    mean: np.ndarray
    centred: np.ndarray

    @property
    def root(self) -> np.ndarray:
        """R (min(N, D), D)."""
        return np.asarray(np.linalg.qr(self.centred, mode="r"))


def _fits(first: ArrayLike, second: ArrayLike) -> tuple[_Fit, _Fit]:
    one, other = _fit(first), _fit(second)
    if one.mean.shape != other.mean.shape:
        raise SafegenError(
            "a Fréchet distance needs features of one dimension; "
            f"got {one.mean.size} and {other.mean.size}: use the same encoder for both"
        )
    return one, other


def _fit(features: ArrayLike) -> _Fit:
    samples = np.asarray(features, dtype=np.float64)
    if samples.ndim != 2 or len(samples) < 2:
        raise SafegenError(
            f"a Fréchet distance needs at least 2 feature rows (N, D) a set; got {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise SafegenError("a Fréchet distance needs finite features; some are NaN or infinite")
    mean = samples.mean(axis=0)
    return _Fit(mean, (samples - mean) / np.sqrt(len(samples) - 1))
