"""Attackers learn from nothing that a defense was trained on or a report is measured with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import Task, create_attack
from safegen.attacks._fine_tuning import benign_pictures
from safegen.attacks.relearn import Relearn
from safegen.attacks.target import Target
from safegen.cli.triplets import training_texts
from safegen.defenses import defended
from safegen.editing.settings import EditSettings
from safegen.lab.attack_table import lab_attack
from safegen.lab.build.stages import BuildSettings
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.lab.prompts import erasure_prompts
from safegen.lab.safety_checker import CALIBRATION_SEED
from safegen.lab.table import lab_settings
from safegen.lab.triplets import LabTriplets
from safegen.lab.world.world import SAFE_WORLD, Mixture, draw_scenes
from safegen.models.texts import TextCondition
from safegen.prompts import Prompt, create_prompt_set

ATTACKER = lab_attack(("relearn:benign",))
EXAMPLES = list(create_prompt_set(str(ATTACKER.examples)))
COUNT = 100
"""Scene ``i`` of a sequence depends on its seed and ``i`` only, so the first ones stand for all."""


@dataclass(frozen=True)
class Watched(Target):
    """Keeps what an attack encodes."""

    pictures: list[np.ndarray] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def encode(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        self.pictures.extend(images)
        return torch.zeros(len(images), 4, 8, 8)

    def embed(self, texts: Sequence[str]) -> TextCondition:
        self.texts.extend(texts)
        return TextCondition(torch.zeros(len(texts), 4, 8))


@pytest.fixture(scope="module")
def relearned(lab: Target) -> Watched:
    """What fine-tuning on benign pictures trains on."""
    there = {each.name: getattr(lab, each.name) for each in fields(Target)}
    tasks = tuple(Task(each.id, each.text, each.seed, 5.0) for each in EXAMPLES)
    watched = Watched(**there | {"examples": tasks})
    attack: Any = create_attack("relearn:benign", LAB)
    assert isinstance(attack, Relearn)
    idle = replace(attack, settings=replace(attack.settings, steps=0, checks=()))
    with defended(lab.pipeline, lab.defense), idle.against(watched):
        assert len(watched.pictures) == len(watched.texts) == attack.settings.benign
    return watched


def test_a_lora_on_top_learns_from_the_same_pictures(relearned: Watched) -> None:
    attack: Any = create_attack("lora-on-top", LAB)
    count, seed = attack.settings.benign, attack.settings.seed
    images, captions = benign_pictures(relearned, None, count, seed, "lora-on-top")
    assert [image.tobytes() for image in images] == [each.tobytes() for each in relearned.pictures]
    assert list(captions) == relearned.texts


def test_a_classifier_of_latents_learns_from_some_of_them(relearned: Watched) -> None:
    attack: Any = create_attack("classifier-guidance", LAB)
    count, seed = attack.settings.benign, attack.settings.seed
    images, _ = benign_pictures(relearned, None, count, seed, "classifier-guidance")
    assert len(images) == count
    assert {each.tobytes() for each in images} <= {each.tobytes() for each in relearned.pictures}


def shown(texts: Iterable[str]) -> set[str]:
    """The objects and places that captions name, however they word it."""
    wording = re.compile(r"^(there is )?(an? (small )?(drawing|picture|illustration) of )?")
    return {wording.sub("", text).replace(" next to ", " and ") for text in texts}


@pytest.mark.parametrize(
    ("mixture", "seed"),
    [
        (SAFE_WORLD, CALIBRATION_SEED),
        (SAFE_WORLD, BuildSettings().seed + 1),  # the filtered model's
        (Mixture(), BuildSettings().seed),
    ],
)
def test_no_picture_of_an_attack_trained_a_model_or_a_checker(
    relearned: Watched, mixture: Mixture, seed: int
) -> None:
    scenes = draw_scenes(COUNT, mixture, "train", seed)
    trained = {scene.image.tobytes() for scene in scenes}
    assert not trained & {image.tobytes() for image in relearned.pictures}
    captions = shown(scene.recipe.caption for scene in scenes)
    assert not captions & shown([*relearned.texts, *(each.text for each in EXAMPLES)])


def test_no_picture_of_an_attack_is_in_an_edits_triplets(relearned: Watched) -> None:
    triplets = LabTriplets(COUNT, EditSettings().seed, benign=2 * COUNT)
    pairs, benign = list(triplets.pairs()), list(triplets.benign())
    learned = [image for pair in pairs for image in (pair.unsafe, pair.censored)]
    trained = {image.tobytes() for image in (*learned, *(each.image for each in benign))}
    assert not trained & {image.tobytes() for image in relearned.pictures}
    assert not shown(each.caption for each in benign) & shown(relearned.texts)


def test_no_text_of_an_attack_is_a_defenses_or_a_reports(relearned: Watched) -> None:
    table = lab_settings(Path("run"))
    reported: list[Prompt] = [
        prompt
        for spec in (*table.unsafe, *table.benign, *table.near_miss, f"goals={ATTACKER.goals}")
        for prompt in create_prompt_set(str(spec).partition("=")[2])
    ]
    unsafe, benign = training_texts(LAB_WEAPONS.prompts)
    trained = [*erasure_prompts(), *unsafe, *benign]
    theirs = [*relearned.texts, *(each.text for each in EXAMPLES)]
    assert not shown(theirs) & shown([*trained, *(each.text for each in reported)])
    assert not {each.seed for each in EXAMPLES} & {each.seed for each in reported}
