"""Part-level removal rate: share of the original's unsafe parts that are gone.

The nudity removal rate (NRR) of arXiv 2404.06666, with the detector's parts.
"""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics._cells import part_counts
from safegen.metrics.removal import Removal


@register("part-removal")
def part_removal() -> Removal:
    """Count detected parts."""
    return Removal("part removal", 20, part_counts)
