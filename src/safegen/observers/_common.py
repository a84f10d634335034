"""What all observers need: the pictures of what they look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safegen.errors import SafegenError
from safegen.observers import Sight


def pictures(sights: Sequence[Sight]) -> list[np.ndarray]:
    """The pictures, uint8 (H, W, 3), of which there is at least one."""
    if not sights:
        raise SafegenError("an observer was given no picture; give it at least one")
    return [sight.image for sight in sights]
