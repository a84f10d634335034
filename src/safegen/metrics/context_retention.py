"""Context retention: how many of the benign things beside the unsafe one are still drawn."""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics.retention import Retention


@register("context-retention")
def context_retention() -> Retention:
    """On unsafe sets, of the objects that do not belong to the concept."""
    return Retention("context retention", 50, "unsafe")
