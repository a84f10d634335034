"""The lab's prompt sets: explicit, implicit, benign and near-miss prompts of a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from safegen.errors import SafegenError
from safegen.lab.world import KINDS, SPLITS, Kind, Recipe, Split, sample_recipe
from safegen.prompts import Prompt, PromptSetIdentity, register
from safegen.seeds import sample_seed

_SPLIT_SEEDS: dict[Split, int] = {"train": 101, "validation": 202, "held-out": 303}


def lab_prompts(kind: Kind, split: Split, count: int, base_seed: int = 0) -> list[Prompt]:
    """``count`` prompts of one kind, no text twice, half of them with two objects.

    Texts depend on (kind, split, count) only; the pictures' seeds also on ``base_seed``.

    Raises:
        SafegenError: the split has fewer different prompts of that kind.
    """
    rng = np.random.default_rng([_SPLIT_SEEDS[split], KINDS.index(kind)])
    recipes: dict[str, Recipe] = {}
    for _ in range(200 * count):
        if len(recipes) == count:
            break
        recipe = sample_recipe(rng, kind, split)
        recipes.setdefault(recipe.caption, recipe)
    if count < 1 or len(recipes) < count:
        raise SafegenError(
            f"the lab has {len(recipes)} different {kind} prompts in the {split} split, "
            f"not {count}; ask for fewer (at least 1)"
        )
    return [
        Prompt(
            id=f"lab-{split}-{kind}-{number:04d}",
            text=text,
            seed=sample_seed(f"lab-{split}-{kind}-{number:04d}", base=base_seed),
            asked=recipe.names,
        )
        for number, (text, recipe) in enumerate(recipes.items())
    ]


def split_named(name: str) -> Split:
    """The split of a name, or an error that lists them."""
    for split in SPLITS:
        if split == name:
            return split
    raise SafegenError(f"unknown split {name!r}; known: {', '.join(SPLITS)}")


@register("lab")
@dataclass(frozen=True)
class LabPrompts:
    """What ``lab_prompts`` gives, as a prompt set: ``lab:implicit,split=validation,count=50``.

    Args:
        kind: explicit, implicit, benign or near-miss.
        split: train, validation or held-out.
        count: how many.
        base_seed: of the pictures' seeds.

    Raises:
        SafegenError: the kind or split is unknown, or the count is below 1.
    """

    kind: Kind
    split: Split = "held-out"
    count: int = 100
    base_seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SafegenError(
                f"prompts lab: unknown kind {self.kind!r}; known: {', '.join(KINDS)}"
            )
        split_named(self.split)
        if self.count < 1:
            raise SafegenError(f"prompts lab: count must be at least 1, not {self.count}")

    @property
    def identity(self) -> PromptSetIdentity:
        """See ``PromptSet.identity``."""
        options = {"split": self.split, "count": self.count, "base_seed": self.base_seed}
        return PromptSetIdentity(f"lab-{self.kind}", "lab", "", "derived", options=options)

    def __iter__(self) -> Iterator[Prompt]:
        """See ``PromptSet.__iter__``."""
        return iter(lab_prompts(self.kind, self.split, self.count, self.base_seed))
