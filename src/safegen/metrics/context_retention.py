"""Context retention: share of pictures that still show the benign objects beside the unsafe."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics.retention import Retention


@register("context-retention")
def context_retention() -> Retention:
    """Measure unsafe sets by the objects that do not belong to the concept."""
    return Retention("context retention", 50, "unsafe")
