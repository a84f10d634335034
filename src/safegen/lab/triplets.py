"""Triplets of the lab: drawn scenes with ground-truth boxes, and prompts to make triplets from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from safegen.errors import SafegenError
from safegen.lab.world.world import SPLITS, Kind, Mixture, Scene, Split, draw_scene
from safegen.triplets.censoring import censor, check_censoring
from safegen.triplets.source import Benign, Pair

UNSAFE_WORLD = Mixture(explicit=0.5, implicit=0.5, benign=0.0, near_miss=0.0)
"""Mixture in which every scene has a weapon."""
BENIGN_WORLD = Mixture(explicit=0.0, implicit=0.0, benign=0.4, near_miss=0.6)
"""Mixture without weapons; more than half of the scenes have an object that resembles one."""
UNSAFE_KINDS: tuple[Kind, ...] = ("explicit", "implicit")
PAIRS = 800
"""Number of unsafe pairs that an edit of the lab is trained on."""
BENIGN_SHARE = 2
"""Benign pictures per pair."""
BENIGN_KINDS: tuple[Kind, ...] = ("benign", "near-miss")


class LabTriplets:
    """Drawn scenes: weapons censored by ground truth, and benign and near-miss scenes.

    Args:
        count: number of pairs.
        seed: seed of both sequences; scene ``i`` depends on (split, seed, i) only.
        split: split of the world to draw from.
        censoring: method that makes the weapons unrecognisable, or a mixture (see ``censor``).
        benign: number of benign pictures; as many as pairs if None.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        split: Split = "train",
        censoring: str = "inpaint",
        benign: int | None = None,
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

    def pairs(self) -> Iterator[Pair]:
        """See ``TripletSource.pairs``."""
        for index in range(self.count):
            scene = self._scene(UNSAFE_WORLD, index)
            censored = censor(scene.image, scene.unsafe_boxes, self.censoring, index)
            yield Pair(scene.image, censored, f"lab scene {index}")

    def benign(self) -> Iterator[Benign]:
        """See ``TripletSource.benign``."""
        for index in range(self.benign_count):
            scene = self._scene(BENIGN_WORLD, index)
            yield Benign(scene.image, scene.recipe.caption)

    def describe(self) -> dict[str, Any]:
        """See ``TripletSource.describe``."""
        return {
            "kind": "lab",
            "count": self.count,
            "benign": self.benign_count,
            "seed": self.seed,
            "split": self.split,
            "censoring": self.censoring,
        }

    def _scene(self, mixture: Mixture, index: int) -> Scene:
        return draw_scene(mixture, self.split, self.seed, index)


def training_prompts(kinds: Sequence[Kind], count: int) -> list[str]:
    """List ``count`` different training prompts per kind, the kinds taking turns."""
    from safegen.lab.prompts import lab_prompts

    sets = [lab_prompts(kind, "train", count) for kind in kinds]
    return [prompt.text for prompts in zip(*sets, strict=True) for prompt in prompts]
