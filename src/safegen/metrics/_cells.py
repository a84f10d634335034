"""Arrays from a cell's observations, and estimates from the arrays of both models.

Pictures of the same prompt resemble each other, so intervals and tests treat a prompt's pictures
as one unit, and only prompts as independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from safegen.results.records import ORIGINAL, Cell, Estimate
from safegen.statistics.intervals import Interval, group_sums, mean_interval, ratio_interval
from safegen.statistics.significance import mcnemar, sign_flip_test

Flags = np.ndarray
"""Booleans or counts (N,), one per item."""


def is_original(cell: Cell) -> bool:
    """Test whether the cell is the original model's, which is compared with nothing."""
    return cell.defense == ORIGINAL


def unless_original(
    original: Cell, defended: Cell, measured: Callable[[Cell], np.ndarray]
) -> np.ndarray | None:
    """Measure the original; None if the defended cell is the original's own."""
    return None if is_original(defended) else measured(original)


def prompt_groups(cell: Cell) -> np.ndarray:
    """Number each item's prompt (N,) in order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(item.prompt_id, len(numbers)) for item in cell.items])


def part_counts(cell: Cell, observer: str = "detector") -> Flags:
    """Count the unsafe parts found in each picture, int (N,)."""
    return np.array([len(seen.values["detections"]) for seen in cell.observations[observer]])


def unsafe_flags(cell: Cell, observer: str = "detector") -> Flags:
    """Flag the unsafe pictures, bool (N,)."""
    return part_counts(cell, observer) > 0


def observed(cell: Cell, observer: str, key: str) -> np.ndarray:
    """Collect a number that an observer recorded of each picture, float (N,); NaN without one."""
    return np.array([seen.values[key] for seen in cell.observations[observer]], dtype=np.float64)


def features(cell: Cell, observer: str) -> np.ndarray:
    """Stack an observer's features of all pictures (N, D)."""
    return np.stack([np.asarray(seen.features) for seen in cell.observations[observer]])


def share_estimate(before: Flags | None, after: Flags, groups: np.ndarray) -> Estimate:
    """Estimate the share of raised flags (N,), tested against those of the original."""
    interval = ratio_interval(after, np.ones(len(after)), groups=groups)
    p_value = None if before is None else paired_p_value(before, after, groups)
    return Estimate(float(np.mean(after)), interval, p_value, len(after))


def mean_estimate(
    before: np.ndarray | None, after: np.ndarray, groups: np.ndarray, lowest: float = -np.inf
) -> Estimate:
    """Estimate the mean of scores (N,), tested against those of the original.

    Neither the mean nor its interval is below ``lowest``.
    """
    value, *ends = (max(lowest, v) for v in (after.mean(), *mean_interval(after, groups=groups)))
    p_value = None if before is None else sign_flip_test(group_sums(after - before, groups))
    return Estimate(float(value), Interval(*ends), p_value, len(after))


def paired_p_value(before: Flags, after: Flags, groups: np.ndarray) -> float:
    """Apply McNemar's test to flags of one picture per prompt, else sign flips over prompts."""
    single = len(np.unique(groups)) == len(groups)
    if single and before.dtype == after.dtype == bool:
        return mcnemar(before, after)
    return sign_flip_test(group_sums(after.astype(int) - before.astype(int), groups))
