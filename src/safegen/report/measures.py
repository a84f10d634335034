"""The figures of an evaluation as text."""

from __future__ import annotations

from functools import cache

from safegen.metrics import METRICS, Metric
from safegen.report.figures import percent
from safegen.results.records import Estimate

LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@cache
def measure(metric: str) -> Metric:
    """The metric of a registered name."""
    return METRICS.get(metric)()


def value_text(metric: str, value: float) -> str:
    """A figure as text."""
    if measure(metric).is_share:
        return percent(value)
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def interval_text(metric: str, estimate: Estimate) -> str:
    """The two ends of a figure's interval; empty where it has none."""
    if estimate.interval is None:
        return ""
    low, high = (value_text(metric, end) for end in estimate.interval)
    return f"{low.removesuffix(' %')} – {high}"


def significance_mark(estimate: Estimate) -> str:
    """Stars for p below 0.05, 0.01 and 0.001."""
    if estimate.p_value is None:
        return ""
    return next((mark for level, mark in LEVELS if estimate.p_value < level), "")
