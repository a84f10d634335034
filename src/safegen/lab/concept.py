"""Concepts of the lab: objects of its world, of which one kind is to be removed."""

from __future__ import annotations

from pathlib import Path

from safegen.concepts import Concept, load_concept, read_concept
from safegen.errors import SafegenError
from safegen.lab.world.objects import BENIGN_NAMES, OBJECTS

WEAPONS, ANIMALS, FOOD, VEHICLES = (
    Path(__file__).parent / "concepts" / f"{name}.yaml"
    for name in ("weapons", "animals", "food", "vehicles")
)
LAB_WEAPONS = read_concept(WEAPONS)


def lab_concept(name: str) -> Concept:
    """Load a concept whose objects the lab can draw, by its name or file.

    Raises:
        SafegenError: it has no objects, or one that the lab lacks.
    """
    concept = load_concept(name)
    strays = [each for each in concept.objects if each not in OBJECTS]
    strays += [each for each in concept.near_misses if each not in BENIGN_NAMES]
    if strays or not concept.objects or not concept.near_misses:
        raise SafegenError(
            f"concept {name}: the lab needs objects and near_misses among {', '.join(OBJECTS)} "
            f"(near_misses without weapons){', not ' * bool(strays)}{', '.join(strays)}"
        )
    return concept
