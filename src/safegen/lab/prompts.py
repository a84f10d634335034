"""Prompt sets of the lab: explicit, implicit, benign and near-miss prompts of a split.

The adversarial set, in the two forms of SneakyPrompt, ships as a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.lab.concept import LAB_WEAPONS, lab_concept
from safegen.lab.world.objects import OBJECTS
from safegen.lab.world.world import KINDS, SPLITS, Kind, Recipe, Split, sample_recipe
from safegen.prompts import Prompt, PromptSetIdentity
from safegen.prompts._records import CSV
from safegen.results.records import ORIGINAL
from safegen.seeds import sample_seed

Adversarial = Literal["sneakyprompt-n", "sneakyprompt-p"]
ADVERSARIAL: tuple[Adversarial, ...] = get_args(Adversarial)
ADVERSARIAL_FILE = Path(__file__).parent / "data" / "lab_sneakyprompt.csv"
"""File of both forms of the adversarial set; docs/adversarial_set.md is its datasheet."""
ATTACKED = (ORIGINAL, "esd-x")
"""Defenses that the adversarial set was found on."""

_SPLIT_SEEDS: dict[Split, int] = {
    "train": 101,
    "validation": 202,
    "held-out": 303,
    "attack": 404,
}
MAX_COUNT = 10_000
"""Most prompts of a set; beyond, hardly any is a new one."""


def lab_prompts(
    kind: Kind, split: Split, count: int, base_seed: int = 0, concept: Concept = LAB_WEAPONS
) -> list[Prompt]:
    """List ``count`` prompts of one kind, all different, half of them with two objects.

    Texts depend on (kind, split, count, concept) only; the pictures' seeds also on ``base_seed``.

    Raises:
        SafegenError: the split has fewer different prompts of that kind.
    """
    if kind == "implicit" and not all(OBJECTS[name].phrases for name in concept.objects):
        raise SafegenError(
            f"the lab has no implicit prompts of {concept.name}: only weapons have other "
            "names; leave the set out"
        )
    named = "" if concept == LAB_WEAPONS else f"{concept.name}-"
    rng = np.random.default_rng([_SPLIT_SEEDS[split], KINDS.index(kind)])
    recipes: dict[str, Recipe] = {}
    for _ in range(200 * count):
        if len(recipes) == count:
            break
        recipe = sample_recipe(rng, kind, split, concept)
        recipes.setdefault(recipe.caption, recipe)
    if count < 1 or len(recipes) < count:
        raise SafegenError(
            f"the lab has {len(recipes)} different {kind} prompts in the {split} split, "
            f"not {count}; ask for fewer (at least 1)"
        )
    return [
        Prompt(
            id=f"lab-{named}{split}-{kind}-{number:04d}",
            text=text,
            seed=sample_seed(f"lab-{named}{split}-{kind}-{number:04d}", base=base_seed),
            asked=recipe.names,
        )
        for number, (text, recipe) in enumerate(recipes.items())
    ]


def erasure_prompts(count: int = 96) -> list[str]:
    """List texts of the training split that name a weapon, which baselines learn to erase."""
    return [prompt.text for prompt in lab_prompts("explicit", "train", count)]


def adversarial_prompts(
    kind: Adversarial,
    count: int | None = None,
    base_seed: int = 0,
    file: Path = ADVERSARIAL_FILE,
    found_on: str = ORIGINAL,
) -> list[Prompt]:
    """List the first ``count`` prompts of one form of the adversarial set that were found on a
    defense of ``ATTACKED``, all of them if None.

    Prompts keep the seeds with which they were found, unless ``base_seed`` is not 0.

    Raises:
        SafegenError: the set has fewer, or the file is missing.
    """
    _check_there(file)
    wanted = (kind, found_on)
    rows = (
        record
        for record in CSV.records(file)
        if (record.fields["attack"], record.fields["defense"]) == wanted
    )
    prompts = [
        Prompt(
            id=row.fields["id"],
            text=row.fields["prompt"],
            seed=int(row.fields["seed"]),
            asked=tuple(row.fields["asked"].split("+")),
            line=row.line,
        )
        for row in islice(rows, count)
    ]
    if count is not None and len(prompts) < count:
        raise SafegenError(
            f"the lab has {len(prompts)} {kind} prompts found on {found_on}, not {count}; ask for "
            "fewer: count=N"
        )
    if base_seed == 0:
        return prompts
    return [replace(each, seed=sample_seed(each.id, base=base_seed)) for each in prompts]


def split_named(name: str) -> Split:
    """Return the split of a name, or raise an error that lists all splits."""
    for split in SPLITS:
        if split == name:
            return split
    raise SafegenError(f"unknown split {name!r}; known: {', '.join(SPLITS)}")


@dataclass(frozen=True)
class LabPrompts:
    """Prompt set of the lab's prompts: ``lab:implicit,split=validation,count=50``.

    Args:
        kind: explicit, implicit, benign or near-miss; or a form of the adversarial set,
            sneakyprompt-n or sneakyprompt-p.
        split: train, validation, held-out or attack; the adversarial set is held out.
        count: number of prompts.
        base_seed: base of the pictures' seeds.
        concept: name or file of the concept that is unsafe.
        found_on: defense that the adversarial set's prompts were found on, none or esd-x. Those
            found on none do no defense more harm than another.

    Raises:
        SafegenError: kind, split or concept is unknown, they do not go together, or the count is
            below 1.
    """

    kind: Kind | Adversarial
    split: Split = "held-out"
    count: int = 100
    base_seed: int = 0
    concept: str = LAB_WEAPONS.name
    found_on: str = ORIGINAL

    def __post_init__(self) -> None:
        known = (*KINDS, *ADVERSARIAL)
        if self.kind not in known:
            raise SafegenError(
                f"prompts lab: unknown kind {self.kind!r}; known: {', '.join(known)}"
            )
        split_named(self.split)
        if self.kind in ADVERSARIAL and self.split != "held-out":
            raise SafegenError(
                f"prompts lab: {self.kind} is of the held-out split only; leave out split"
            )
        if not 1 <= self.count <= MAX_COUNT:
            raise SafegenError(
                f"prompts lab: count must be at least 1 and at most {MAX_COUNT}, not {self.count}"
            )
        if self.kind in ADVERSARIAL and self.concept != LAB_WEAPONS.name:
            raise SafegenError(f"prompts lab: {self.kind} is of weapons only; leave out concept")
        if self.found_on not in ATTACKED:
            raise SafegenError(
                f"prompts lab: found_on must be {' or '.join(ATTACKED)}, not {self.found_on!r}"
            )
        if self.kind in KINDS and self.found_on != ORIGINAL:
            raise SafegenError(f"prompts lab: {self.kind} was not searched for; leave out found_on")
        lab_concept(self.concept)

    @property
    def identity(self) -> PromptSetIdentity:
        """See ``PromptSet.identity``."""
        named = {} if self.concept == LAB_WEAPONS.name else {"concept": self.concept}
        name = "-".join(["lab", *named.values(), self.kind])
        options = {"split": self.split, "count": self.count, "base_seed": self.base_seed, **named}
        if self.kind in KINDS:
            return PromptSetIdentity(name, "lab", "", "derived", options=options)
        options["found_on"] = self.found_on
        _check_there(ADVERSARIAL_FILE)
        return PromptSetIdentity(
            name,
            ADVERSARIAL_FILE.name,
            file_hash(ADVERSARIAL_FILE),
            "derived" if self.base_seed else "file",
            options=options,
        )

    def __iter__(self) -> Iterator[Prompt]:
        """See ``PromptSet.__iter__``."""
        if self.kind == "sneakyprompt-n" or self.kind == "sneakyprompt-p":
            listed = adversarial_prompts(
                self.kind, self.count, self.base_seed, found_on=self.found_on
            )
            return iter(listed)
        concept = lab_concept(self.concept)
        return iter(lab_prompts(self.kind, self.split, self.count, self.base_seed, concept))


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise SafegenError(
            f"{file}: the lab's adversarial set is missing; install safegen anew, or make it with "
            "benchmarks/make_adversarial_set.py"
        )
