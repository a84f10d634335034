"""Confidence intervals: percentile bootstrap for means and ratios, Wilson's score for shares."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from safegen.errors import SafegenError

CONFIDENCE = 0.95
RESAMPLES = 2000
FEW = 5
"""Smallest number of cases on either side of a share for which the bootstrap is reliable."""


class Interval(NamedTuple):
    """Two ends of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: float, count: int, confidence: float = CONFIDENCE) -> Interval:
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


def difference_interval(
    first: float, first_ends: Interval, second: float, second_ends: Interval
) -> Interval:
    """Interval of the difference of two shares, from each one's own.

    d - sqrt((p1 - l1)^2 + (u2 - p2)^2) and d + sqrt((u1 - p1)^2 + (p2 - l2)^2), with d = p1 - p2
    (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10 where the ends are Wilson's). It
    takes the shares for independent, so it is wide for shares of the same items.
    """
    below = math.hypot(first - first_ends.low, second_ends.high - second)
    above = math.hypot(first_ends.high - first, second - second_ends.low)
    return Interval(first - second - below, first - second + above)


def mean_interval(values: ArrayLike, seed: int = 0, groups: ArrayLike | None = None) -> Interval:
    """Bootstrap the mean of values (N,).

    Args:
        values: one value per item.
        seed: seed of the resampling.
        groups: prompt of each item (N,); a prompt's items are resampled together, since they
            resemble each other. None resamples every item by itself.
    """
    items = np.asarray(values, dtype=np.float64)
    ones = np.ones_like(items)
    return _quantiles(_resampled_ratios(_grouped_pairs(items, ones, groups), seed))


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, groups: ArrayLike | None = None
) -> Interval:
    """Bootstrap sum(numerator) / sum(denominator) in pairs, over the items.

    Both are flags or counts (N,) of the same items; ``groups`` as in ``mean_interval``.

    The bootstrap cannot see how few cases a ratio rests on. Where fewer than ``FEW`` rows (prompts,
    or items without groups) hold something of their denominator, or fewer have lost something of
    it, and where every resample gives the same ratio, the interval also covers Wilson's, with the
    share of the denominator that is held, and each row as one observation.
    """
    pairs = _grouped_pairs(numerator, denominator, groups)
    interval = _quantiles(_resampled_ratios(pairs))
    held, whole = np.minimum(*pairs.T)[pairs[:, 1] > 0], pairs[pairs[:, 1] > 0, 1]
    few = min((held > 0).sum(), (held < whole).sum()) < FEW
    if interval.low < interval.high and not few:
        return interval
    count = len(whole)
    wilson = wilson_interval(count * held.sum() / whole.sum(), count)
    return Interval(min(interval.low, wilson.low), max(interval.high, wilson.high))


def group_sums(values: ArrayLike, groups: ArrayLike | None) -> np.ndarray:
    """Sum values (N, ...) by group, (G, ...); return the values without groups."""
    items = np.asarray(values, dtype=np.float64)
    if groups is None:
        return items
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), *items.shape[1:]))
    np.add.at(sums, index, items)
    return sums


def _grouped_pairs(above: ArrayLike, below: ArrayLike, groups: ArrayLike | None) -> np.ndarray:
    pairs = np.stack([np.asarray(above, float), np.asarray(below, float)], axis=1)
    if len(pairs) == 0 or not np.isfinite(pairs).all():
        raise SafegenError("a bootstrap interval needs at least one value, and finite ones")
    return group_sums(pairs, groups)


def _resampled_ratios(pairs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Compute the ratio of the columns' sums per resample of the rows (G, 2), where defined."""
    rng = np.random.default_rng(seed)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    size = len(pairs)
    if 8 * len(kinds) <= size:
        # Only the count of each kind of row matters, and counts are quicker to draw.
        sums = rng.multinomial(size, counts / size, size=RESAMPLES) @ kinds
    else:
        rows = np.repeat(kinds, counts, axis=0)  # sorted, so that the items' order is no matter
        draws = (rng.integers(size, size=size) for _ in range(RESAMPLES))
        sums = np.stack([np.bincount(draw, minlength=size) @ rows for draw in draws])
    defined = sums[:, 1] > 0
    if not defined.any():
        raise SafegenError("a ratio needs something in its denominator; all of it is 0")
    ratios: np.ndarray = sums[defined, 0] / sums[defined, 1]
    return ratios


def _quantiles(measured: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(measured, [tail, 1 - tail])
    return Interval(float(low), float(high))
