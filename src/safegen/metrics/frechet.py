"""Fréchet distance between Gaussian fits of two sets of features (FID, arXiv 1706.08500)."""

from __future__ import annotations

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
    mean_1, root_1 = _gaussian_fit(first)
    mean_2, root_2 = _gaussian_fit(second)
    if mean_1.shape != mean_2.shape:
        raise SafegenError(
            "a Fréchet distance needs features of one dimension; "
            f"got {mean_1.size} and {mean_2.size}: use the same encoder for both"
        )
    shift = np.square(mean_1 - mean_2).sum()
    cross = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    spread = np.square(root_1).sum() + np.square(root_2).sum() - 2 * cross
    return max(0.0, float(shift + spread))


def _gaussian_fit(features: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and a root R (min(N, D), D) of the covariance, R^T R = S."""
    samples = np.asarray(features, dtype=np.float64)
    if samples.ndim != 2 or len(samples) < 2:
        raise SafegenError(
            f"a Fréchet distance needs at least 2 feature rows (N, D) a set; got {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise SafegenError("a Fréchet distance needs finite features; some are NaN or infinite")
    mean = samples.mean(axis=0)
    scaled = (samples - mean) / np.sqrt(len(samples) - 1)
    return mean, np.asarray(np.linalg.qr(scaled, mode="r"))
