"""Confidence intervals: percentile bootstrap for any statistic, Wilson's score for shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from safegen.errors import SafegenError

CONFIDENCE = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share p = successes / count.

    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with z the normal quantile of
    (1 + confidence) / 2 (E. B. Wilson, 1927). It lies in [0, 1] and has width even where no
    item or every item succeeds.
    """
    if not 0 <= successes <= count or count == 0:
        raise SafegenError(
            f"a share needs 0 <= successes <= count, count > 0; got {successes}/{count}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, denominator = successes / count, 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / denominator
    spread = share * (1 - share) / count + z**2 / (4 * count**2)
    half = z * math.sqrt(spread) / denominator
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == count else min(1.0, centre + half)
    return Interval(low, high)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[np.ndarray], float] | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap: the statistic's quantiles over resamples of the items.

    Args:
        values: array (N, ...); items lie along the first axis and stay whole, so that columns
            hold what was measured on the same item.
        statistic: from a resample of the same shape to a number; None for the mean. A resample
            where it is not defined (NaN) does not count.
        seed: of the resampling.
        confidence: share of resamples inside the interval.
        resamples: how many to draw.
    """
    items = np.asarray(values, dtype=np.float64)
    if len(items) == 0 or not np.isfinite(items).all():
        raise SafegenError("a bootstrap interval needs at least one value, and finite ones")
    measure = statistic or (lambda resample: float(resample.mean()))
    rng = np.random.default_rng(seed)
    draws = (items[rng.integers(len(items), size=len(items))] for _ in range(resamples))
    measured = np.array([measure(draw) for draw in draws])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(measured, [tail, 1 - tail])
    return Interval(float(low), float(high))


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Paired bootstrap of sum(numerator) / sum(denominator), over the items.

    Both are flags or counts (N,) of the same items.

    Where every resample gives the same ratio (nothing is left of the denominator's items, or all
    of it), the bootstrap cannot see how few items there were; the interval then also covers
    Wilson's for the share of the denominator's items that the numerator still holds.
    """
    pairs = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)], axis=1)
    interval = bootstrap_interval(pairs, _ratio_of_sums, seed, confidence)
    if interval.low < interval.high:
        return interval
    counted = pairs[:, 1] > 0
    wilson = wilson_interval(int((pairs[counted, 0] > 0).sum()), int(counted.sum()), confidence)
    return Interval(min(interval.low, wilson.low), max(interval.high, wilson.high))


def _ratio_of_sums(pairs: np.ndarray) -> float:
    above, below = pairs.sum(axis=0)
    return float(above / below) if below > 0 else math.nan
