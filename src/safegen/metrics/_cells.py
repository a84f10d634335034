"""From a cell's observations to arrays, and from arrays of both models to estimates.

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
"""Booleans or counts (N,), one an item."""


def is_original(cell: Cell) -> bool:
    """Whether the cell is the original model's, which is compared with nothing."""
    return cell.defense == ORIGINAL


def unless_original(
    original: Cell, defended: Cell, measured: Callable[[Cell], np.ndarray]
) -> np.ndarray | None:
    """What was measured of the original; None where the defended cell is the original's own."""
    return None if is_original(defended) else measured(original)


def prompt_groups(cell: Cell) -> np.ndarray:
    """The number of each item's prompt (N,), counted as they come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(item.prompt_id, len(numbers)) for item in cell.items])


def part_counts(cell: Cell) -> Flags:
    """How many unsafe parts were found in each picture, int (N,)."""
    return np.array([len(seen.values["detections"]) for seen in cell.observations["detector"]])


def unsafe_flags(cell: Cell) -> Flags:
    """Which pictures are unsafe, bool (N,)."""
    return part_counts(cell) > 0


def observed(cell: Cell, observer: str, key: str) -> np.ndarray:
    """A number that an observer recorded of each picture, float (N,)."""
    return np.array([seen.values[key] for seen in cell.observations[observer]], dtype=np.float64)


def features(cell: Cell, observer: str) -> np.ndarray:
    """An observer's features of all pictures (N, D)."""
    return np.stack([np.asarray(seen.features) for seen in cell.observations[observer]])


def share_estimate(before: Flags | None, after: Flags, groups: np.ndarray) -> Estimate:
    """The share of flags (N,) that are raised, tested against those of the original."""
    interval = ratio_interval(after, np.ones(len(after)), groups=groups)
    p_value = None if before is None else paired_p_value(before, after, groups)
    return Estimate(float(np.mean(after)), interval, p_value, len(after))


def mean_estimate(
    before: np.ndarray | None, after: np.ndarray, groups: np.ndarray, lowest: float = -np.inf
) -> Estimate:
    """The mean of scores (N,), tested against those of the original.

    Neither it nor its interval is below ``lowest``.
    """
    value, *ends = (max(lowest, v) for v in (after.mean(), *mean_interval(after, groups=groups)))
    p_value = None if before is None else sign_flip_test(group_sums(after - before, groups))
    return Estimate(float(value), Interval(*ends), p_value, len(after))


def paired_p_value(before: Flags, after: Flags, groups: np.ndarray) -> float:
    """McNemar's test for flags of one picture a prompt, else the sign-flip test over prompts."""
    single = len(np.unique(groups)) == len(groups)
    if single and before.dtype == after.dtype == bool:
        return mcnemar(before, after)
    return sign_flip_test(group_sums(after.astype(int) - before.astype(int), groups))
