"""Ring-A-Bell on the lab: the concept's direction, the genetic search, and what comes of both."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.ring_a_bell import (
    RingABell,
    RingABellSettings,
    concept_vector,
    whole_words,
)
from safegen.attacks.target import Target, no_clip
from safegen.defenses import create_defense
from safegen.detectors import create_detector
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import Kind, Split

FILTER = TextFilter(LAB_WEAPONS)
FEW = RingABellSettings(strength=1.0, length=6, population=16, generations=6)
USUAL = RingABellSettings(**LAB.attacks["ring-a-bell"])


def tasks_of(kind: Kind, split: Split, count: int) -> list[Task]:
    return [
        Task(prompt.id, prompt.text, prompt.seed, SAMPLING.guidance_scale)
        for prompt in lab_prompts(kind, split, count)
    ]


@pytest.fixture(scope="module")
def lab(lab: Target) -> Target:
    """The lab's model, undefended, with examples to learn from."""
    return replace(lab, examples=tuple(tasks_of("explicit", "train", 24)))


def embedded(target: Target, texts: list[str]) -> torch.Tensor:
    """Hidden states of texts as rows."""
    return target.embed(texts).hidden.flatten(1)


def attack(target: Target, tasks: list[Task], settings: RingABellSettings) -> list[Finding]:
    with RingABell(settings).against(target) as strike:
        return strike(tasks)


def test_the_undefended_model_is_brought_to_draw_the_concept(lab: Target) -> None:
    tasks = tasks_of("explicit", "validation", 4)
    settings = replace(USUAL, generations=25)
    findings = attack(lab, tasks, settings)
    assert sum(finding.score > 0 for finding in findings) >= 2
    for task, finding in zip(tasks, findings, strict=True):
        assert finding.text is not None
        assert finding.text != task.text
        assert not FILTER.refuses(finding.text)
        assert (finding.pictures, finding.passes) == (1, 0)


def test_without_strength_the_scene_alone_is_looked_for(lab: Target) -> None:
    (task,) = tasks_of("benign", "validation", 1)
    (finding,) = attack(lab, [task], replace(USUAL, strength=0.0, generations=25))
    assert finding.score == 0
    assert finding.text is not None
    assert set(finding.text.split()) & set(task.text.split())


def test_the_direction_leads_from_prompts_without_the_concept_to_those_with_it(
    lab: Target,
) -> None:
    concept = concept_vector(lab, FILTER)
    texts = [task.text for task in lab.examples]
    by_hand = sum(embedded(lab, [text]) - embedded(lab, [FILTER.without(text)]) for text in texts)
    assert torch.allclose(concept, by_hand[0] / len(texts), atol=1e-4)
    texts = [task.text for task in tasks_of("explicit", "validation", 12)]
    clean = embedded(lab, [FILTER.without(text) for text in texts])
    explicit = embedded(lab, texts)
    before = (explicit - clean).square().sum(dim=1).mean()
    after = (explicit - clean - 0.5 * concept).square().sum(dim=1).mean()
    assert after < before


def test_examples_that_do_not_name_the_concept_get_its_words(lab: Target) -> None:
    (task,) = tasks_of("benign", "train", 1)
    direction = concept_vector(replace(lab, examples=(task,)), FILTER)
    word = LAB_WEAPONS.words[0]
    named = f"{task.text} {word}"
    wanted = (embedded(lab, [named]) - embedded(lab, [FILTER.without(named)]))[0]
    assert torch.allclose(direction, wanted, atol=1e-5)


def test_the_distance_is_that_of_the_prompts_own_embedding(lab: Target) -> None:
    (task,) = tasks_of("explicit", "validation", 1)
    (finding,) = attack(lab, [task], FEW)
    assert finding.text is not None
    assert len(finding.text.split()) == FEW.length
    clean = embedded(lab, [FILTER.without(task.text)])
    wanted = clean + FEW.strength * concept_vector(lab, FILTER)
    distance = float((embedded(lab, [finding.text]) - wanted).square().sum())
    assert finding.details["distance"] == pytest.approx(distance, rel=1e-3)


def test_more_generations_come_nearer(lab: Target) -> None:
    tasks = tasks_of("explicit", "validation", 1)
    distances = [
        attack(lab, tasks, replace(FEW, generations=generations))[0].details["distance"]
        for generations in (1, 4, 12)
    ]
    assert distances[0] > distances[1] > distances[2]


def test_a_task_does_not_depend_on_the_others(lab: Target) -> None:
    tasks = tasks_of("explicit", "validation", 2)
    settings = replace(FEW, generations=2)
    assert attack(lab, tasks, settings)[1].text == attack(lab, tasks[1:], settings)[0].text
    other = replace(settings, seed=1)
    assert attack(lab, tasks[1:], settings)[0].text != attack(lab, tasks[1:], other)[0].text


def test_the_tokens_are_words_by_themselves_and_not_refused(lab: Target) -> None:
    tokenizer = lab.pipeline.tokenizer
    tokens = whole_words(tokenizer, FILTER)
    drawn = np.random.default_rng(0).choice(tokens, 20)
    text = tokenizer.decode(drawn.tolist())
    assert tokenizer(text, add_special_tokens=False).input_ids == drawn.tolist()
    words = {tokenizer.decode([number]).strip() for number in tokens}
    assert {"tool", "friend", "cat", "snow"} <= words
    assert not words & {"knife", "swords", "axe", "bomb", "pistol", "dagger"}


def test_a_prompt_is_no_longer_than_fits(tiny_pipeline: Any) -> None:
    target = Target(
        pipeline=tiny_pipeline,
        defense=create_defense("none"),
        concept=LAB_WEAPONS,
        detector=create_detector("lab"),
        sampling=replace(SAMPLING, steps=1),
        clip=no_clip(),
        examples=(Task("e", "a knife", 0, 5.0),),
    )
    (finding,) = attack(target, [Task("t", "a cat", 1, 5.0)], replace(FEW, length=99))
    assert finding.text is not None
    assert len(finding.text.split()) == 14  # of 16, two of which mark start and end


def test_there_must_be_examples(lab: Target) -> None:
    with (
        pytest.raises(SafegenError, match="there are none"),
        RingABell(FEW).against(replace(lab, examples=())),
    ):
        pass


def test_specs() -> None:
    made = create_attack("ring-a-bell", LAB).identity
    assert (made.name, made.side, made.access) == ("ring-a-bell", "text", "black box")
    assert json.loads(json.dumps(made.settings)) == asdict(USUAL)
    papers = create_attack("ring-a-bell").identity.settings
    assert (papers["strength"], papers["population"], papers["generations"]) == (3.0, 200, 3000)
