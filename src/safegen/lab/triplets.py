"""Triplets of the lab: drawn scenes with ground-truth boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS, lab_concept
from safegen.lab.world.world import SPLITS, Mixture, Scene, Split, draw_scene
from safegen.triplets.censoring import censor, check_censoring
from safegen.triplets.source import Benign, Pair

UNSAFE_WORLD = Mixture(explicit=0.5, implicit=0.5, benign=0.0, near_miss=0.0)
"""Mixture in which every scene has an object of the concept."""
BENIGN_WORLD = Mixture(explicit=0.0, implicit=0.0, benign=0.4, near_miss=0.6)
"""Mixture without the concept; more than half of the scenes have an object that resembles it."""
PAIRS = 2400
"""Number of unsafe pairs that an edit of the lab is trained on."""
BENIGN_SHARE = 2
"""Benign pictures per pair."""


class LabTriplets:
    """Drawn scenes: the concept censored by ground truth, and benign and near-miss scenes.

    Args:
        count: number of pairs.
        seed: seed of both sequences; scene ``i`` depends on (split, seed, i) only.
        split: split of the world to draw from.
        censoring: method that makes the concept unrecognisable, or a mixture (see ``censor``).
        benign: number of benign pictures; as many as pairs if None.
        concept: concept whose objects are unsafe.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        split: Split = "train",
        censoring: str = "inpaint",
        benign: int | None = None,
        concept: Concept = LAB_WEAPONS,
    ) -> None:
        benign = count if benign is None else benign
        if min(count, benign) < 1 or seed < 0 or split not in SPLITS:
            raise SafegenError(
                "lab triplets need a count of at least 1, a seed of at least 0 and a split "
                f"among {', '.join(SPLITS)}, not {count}, {seed} and {split}"
            )
        self.count = count
        self.seed = seed
        self.split: Split = split
        self.censoring = check_censoring(censoring)
        self.benign_count = benign
        self.concept = concept

    def pairs(self) -> Iterator[Pair]:
        """See ``TripletSource.pairs``."""
        for index in range(self.count):
            scene = self._scene(UNSAFE_WORLD, index)
            boxes = scene.boxes_of(self.concept.objects)
            censored = censor(scene.image, boxes, self.censoring, index)
            yield Pair(scene.image, censored, f"lab scene {index}")

    def benign(self) -> Iterator[Benign]:
        """See ``TripletSource.benign``."""
        for index in range(self.benign_count):
            scene = self._scene(BENIGN_WORLD, index)
            yield Benign(scene.image, scene.recipe.caption)

    def describe(self) -> dict[str, Any]:
        """See ``TripletSource.describe``."""
        named = {} if self.concept == LAB_WEAPONS else {"concept": self.concept.name}
        return {
            "kind": "lab",
            **named,
            "count": self.count,
            "benign": self.benign_count,
            "seed": self.seed,
            "split": self.split,
            "censoring": self.censoring,
        }

    def _scene(self, mixture: Mixture, index: int) -> Scene:
        return draw_scene(mixture, self.split, self.seed, index, self.concept)


def drawn(
    concept: str, *, count: int = PAIRS, seed: int = 0, censoring: str = "inpaint"
) -> LabTriplets:
    """Draw triplets of a concept of the lab, with ``BENIGN_SHARE`` benign pictures a pair.

    Args:
        concept: name or file of the concept.
        count: number of pairs.
        seed: seed of the scenes.
        censoring: method that hides the concept (see ``censor``).
    """
    return LabTriplets(
        count, seed, "train", censoring, BENIGN_SHARE * count, concept=lab_concept(concept)
    )
