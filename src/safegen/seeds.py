"""Seeds that depend on the sample alone, never on order, batch or worker."""

from __future__ import annotations

import hashlib


def sample_seed(prompt_id: str, sample: int = 0, base: int = 0) -> int:
    """Hash a prompt's id, the sample's number and a base seed to a seed in [0, 2^48)."""
    digest = hashlib.sha256(f"{base}/{prompt_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
