"""Shared access of observers to pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safegen.errors import SafegenError
from safegen.observers import Sight


def pictures(sights: Sequence[Sight]) -> list[np.ndarray]:
    """Collect the pictures, uint8 (H, W, 3), at least one."""
    if not sights:
        raise SafegenError("an observer was given no picture; give it at least one")
    return [sight.image for sight in sights]
