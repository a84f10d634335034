"""Concept of the lab: its stand-in for unsafe content."""

from __future__ import annotations

from safegen.concepts import Concept
from safegen.lab.world.objects import OBJECTS

LAB_WEAPONS = Concept(
    name="weapons",
    text="weapon, knife, dagger, sword, axe, pistol, bomb",
    words=tuple(thing.text for thing in OBJECTS.values() if thing.unsafe),
)
