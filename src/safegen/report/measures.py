"""The figures of an evaluation as text, and which of them is best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from safegen.metrics import METRICS, Metric
from safegen.report.wording import percent
from safegen.results.records import ORIGINAL, Estimate

LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""P-values below these get so many stars."""
STARS = ", ".join(f"{mark} p < {level:g}" for level, mark in reversed(LEVELS))
TEST = "against the undefended model: paired, two-sided, not corrected for their number"
BEST = "best of the defenses"


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
    ends = estimate.interval or ()
    return "–".join(value_text(metric, end).removesuffix(" %") for end in ends)


def significance_mark(estimate: Estimate) -> str:
    """Stars for p below the ``LEVELS``."""
    if estimate.p_value is None:
        return ""
    return next((mark for level, mark in LEVELS if estimate.p_value < level), "")


def best_of(metric: str, found: Mapping[str, Estimate]) -> set[str]:
    """The defenses with the best figure of a metric, of figures by defense.

    The original model is no defense; none is best where all have the same figure.
    """
    values = {name: each.value for name, each in found.items() if name != ORIGINAL}
    best = max if measure(metric).higher_is_better else min
    if len(set(values.values())) < 2:
        return set()
    return {name for name, value in values.items() if value == best(values.values())}
