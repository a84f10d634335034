"""Figures and names as text: percent, durations, lists, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence


def percent(share: float) -> str:
    """Write a share with one decimal; 100 % means all of it, and 0 % none."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    rounded = round(100 * share, 1)
    if 0 < share < 1:
        rounded = min(max(rounded, 0.1), 99.9)
    return f"{rounded:.1f} %".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Write a duration to the second."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def listed(words: Sequence[str]) -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def literal(text: object) -> str:
    """Escape text for Markdown, and HTML within it, on one line."""
    return re.sub(r"([\\`*_\[\]|<>&])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Write text as a code span of Markdown, on one line, also within a table."""
    words = " ".join(str(text).replace("`", "'").split())
    return f"`{words}`".replace("|", "\\|")
