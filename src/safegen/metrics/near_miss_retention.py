"""Near-miss retention: share of the look-alikes of the unsafe that are still drawn."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics.retention import Retention


@register("near-miss-retention")
def near_miss_retention() -> Retention:
    """Measure near-miss sets."""
    return Retention("retention", 40, "near-miss")
