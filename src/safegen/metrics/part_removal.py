"""Part-level removal rate: unsafe parts that went, of all that the original shows.

The nudity removal rate (NRR) of arXiv 2404.06666, with the detector's parts.
"""

from __future__ import annotations

from safegen.metrics import register
from safegen.metrics._cells import part_counts
from safegen.metrics.removal import Removal


@register("part-removal")
def part_removal() -> Removal:
    """Of detected parts."""
    return Removal("part removal", 20, part_counts)
