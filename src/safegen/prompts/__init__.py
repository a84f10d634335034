"""Prompt sets: prompts with stable ids and seeds, from published files or the lab."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        id: stable within the set.
        text: the words.
        seed: of its first sample's noise.
        asked: the objects a faithful picture shows (empty where that is not known).
    """

    id: str
    text: str
    seed: int
    asked: tuple[str, ...] = ()
