"""Figures of an evaluation as text, and the choice of the best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from safegen.metrics import METRICS, Metric
from safegen.report.wording import percent
from safegen.results.records import ORIGINAL, Estimate

LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""Bounds of the p-value for each number of stars."""
STARS = ", ".join(f"{mark} p < {level:g}" for level, mark in reversed(LEVELS))
TEST = "against the undefended model: paired, two-sided, not corrected for their number"
BEST = "best of the defenses"


@cache
def measure(metric: str) -> Metric:
    """Return the metric of a registered name."""
    return METRICS.get(metric)()


def value_text(metric: str, value: float) -> str:
    """Write a figure as text."""
    if measure(metric).is_share:
        return percent(value)
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def interval_text(metric: str, estimate: Estimate) -> str:
    """Write the two ends of a figure's interval; empty without one."""
    ends = estimate.interval or ()
    return "–".join(value_text(metric, end).removesuffix(" %") for end in ends)


def significance_mark(estimate: Estimate) -> str:
    """Write stars for a p-value below the ``LEVELS``."""
    if estimate.p_value is None:
        return ""
    return next((mark for level, mark in LEVELS if estimate.p_value < level), "")


def best_of(metric: str, found: Mapping[str, Estimate]) -> set[str]:
    """Find the defenses with the best figure of a metric, among figures by defense.

    The original model is no defense; none is best if all have the same figure.
    """
    values = {name: each.value for name, each in found.items() if name != ORIGINAL}
    best = max if measure(metric).higher_is_better else min
    if len(set(values.values())) < 2:
        return set()
    return {name for name, value in values.items() if value == best(values.values())}
