"""Seeds that depend on what is drawn, never on an order, batch or worker."""

from __future__ import annotations

import hashlib


def sample_seed(prompt_id: str, sample: int = 0, base: int = 0) -> int:
    """The seed of a prompt's sample, in [0, 2^48): a hash of the three."""
    digest = hashlib.sha256(f"{base}/{prompt_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
