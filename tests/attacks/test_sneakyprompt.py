"""SneakyPrompt on the lab: what its search finds, and where it has to fail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._policy import Policy
from safegen.attacks._text_filter import TextFilter
from safegen.attacks._words import natural_words, pieces_of_words
from safegen.attacks.sneakyprompt import (
    Form,
    SneakyPrompt,
    SneakyPromptSettings,
    most_telling,
)
from safegen.attacks.target import Target, no_clip
from safegen.defenses import create_defense, defended
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import KINDS
from safegen.models.clip_features import image_features, text_features
from safegen.models.sampling import ImageRequest, generate
from safegen.statistics.cosine import cosine_similarities

FILTER = TextFilter(LAB_WEAPONS)
TASKS = [
    Task(prompt.id, prompt.text, prompt.seed, SAMPLING.guidance_scale)
    for prompt in lab_prompts("explicit", "validation", 4)
]


@contextmanager
def target_under(lab: Target, defense: str) -> Iterator[Target]:
    """The lab's model with a defense on."""
    chosen = create_defense(defense, profile=LAB)
    with defended(lab.pipeline, chosen):
        yield replace(lab, defense=chosen)


def usual(form: Form) -> SneakyPromptSettings:
    return SneakyPromptSettings(form, **LAB.attacks["sneakyprompt"])


def attack(target: Target, tasks: list[Task], form: Form, **changes: Any) -> list[Finding]:
    settings = replace(usual(form), **changes)
    with SneakyPrompt(settings).against(target) as strike:
        return strike(tasks)


@pytest.fixture(scope="module", params=["n", "p"])
def found(request: pytest.FixtureRequest, lab: Target) -> tuple[Form, list[Finding]]:
    """What either form finds on the undefended model."""
    return request.param, attack(lab, TASKS, request.param)


def test_the_undefended_model_is_brought_to_draw_the_concept(
    found: tuple[Form, list[Finding]],
) -> None:
    assert sum(finding.score > 0 for finding in found[1]) >= 3


def test_the_text_filter_lets_every_prompt_pass(found: tuple[Form, list[Finding]]) -> None:
    for task, finding in zip(TASKS, found[1], strict=True):
        assert FILTER.refuses(task.text)
        assert finding.text is not None
        assert not FILTER.refuses(finding.text)


def test_only_the_refused_words_are_replaced(
    lab: Target, found: tuple[Form, list[Finding]]
) -> None:
    form, findings = found
    parts = usual(form).parts
    words = natural_words(lab.clip.tokenizer, FILTER, LAB.caption_words)
    for task, finding in zip(TASKS, findings, strict=True):
        ((start, end),) = FILTER.spans(task.text)
        head, tail = task.text[:start], task.text[end:]
        assert finding.text is not None
        assert finding.text.startswith(head)
        assert finding.text.endswith(tail)
        substitute = finding.text[len(head) : len(finding.text) - len(tail)]
        assert len(substitute.split()) == (parts if form == "n" else 1)
        assert not FILTER.spells(substitute)
        assert form == "p" or set(substitute.split()) <= set(words)


def test_the_picture_is_what_the_model_draws_of_the_prompt(
    lab: Target, found: tuple[Form, list[Finding]]
) -> None:
    for task, finding in zip(TASKS, found[1], strict=True):
        assert finding.text is not None
        ((_, image),) = generate(
            lab.pipeline, [ImageRequest(finding.text, task.seed)], lab.sampling
        )
        # The last bits depend on how many are drawn at once.
        assert np.abs(image.astype(int) - finding.image).max() <= 3
        features = image_features(lab.clip.model, [image], lab.clip.normalisation)
        wanted = text_features(lab.clip.model, lab.clip.tokenizer, [task.text])
        cosine = float(cosine_similarities(features, wanted)[0])
        assert cosine == pytest.approx(finding.details["cosine"], abs=0.02)


def test_no_more_is_asked_than_allowed(found: tuple[Form, list[Finding]]) -> None:
    form, findings = found
    settings = usual(form)
    for finding in findings:
        assert 1 <= finding.pictures <= finding.details["queries"] <= settings.queries
        assert finding.details["queries"] % settings.batch == 0


def test_a_task_does_not_depend_on_the_others(lab: Target) -> None:
    together = attack(lab, TASKS[:2], "p", queries=4)
    alone = attack(lab, TASKS[1:2], "p", queries=4)
    assert together[1].text == alone[0].text
    assert np.array_equal(together[1].image, alone[0].image)


def test_the_seed_of_the_attack_chooses_the_prompts(lab: Target) -> None:
    texts = {attack(lab, TASKS[:1], "p", queries=1, seed=seed)[0].text for seed in (0, 1, 0)}
    assert len(texts) == 2


def test_a_model_that_cannot_draw_the_concept_is_not_brought_to(lab: Target) -> None:
    with target_under(lab, "filtered") as target:
        findings = attack(target, TASKS[:2], "n", queries=8)
    assert [finding.score for finding in findings] == [0.0, 0.0]
    assert [finding.details["queries"] for finding in findings] == [8, 8]


def test_what_an_output_filter_blocks_is_no_success(lab: Target) -> None:
    with target_under(lab, "safety-filter") as target:
        # The filter flags whatever resembles anything.
        target.pipeline.safety_checker.concept_embeds_weights.fill_(-1.0)
        (finding,) = attack(target, TASKS[:1], "n", queries=4)
    assert finding.blocked
    assert finding.score == 0


def test_a_tokenizer_without_words_is_refused(lab: Target, tiny_pipeline: Any) -> None:
    # Its vocabulary is of single letters.
    target = replace(lab, clip=replace(lab.clip, tokenizer=tiny_pipeline.tokenizer))
    with (
        pytest.raises(SafegenError, match="no words to put in"),
        SneakyPrompt(usual("p")).against(target),
    ):
        pass


@pytest.mark.parametrize("form", ["n", "p"])
def test_words_and_pieces(lab: Target, form: Form) -> None:
    tokenizer = lab.clip.tokenizer
    words = (
        natural_words(tokenizer, FILTER, LAB.caption_words)
        if form == "n"
        else pieces_of_words(tokenizer, 9, FILTER)
    )
    assert len(words) == len(set(words)) > 60
    assert all(re.fullmatch("[a-z]{2,}", word) for word in words)
    assert not any(FILTER.spells(word) for word in words)
    captions = {w for kind in KINDS for p in lab_prompts(kind, "validation", 100) for w in
                re.findall("[a-z]{2,}", p.text)}  # fmt: skip
    if form == "n":
        assert captions - set(words) == {w for w in captions if FILTER.refuses(w)}
    else:
        assert max(map(len, words)) <= 9


def test_elsewhere_natural_words_are_the_tokenizers_own(tiny_pipeline: Any) -> None:
    assert natural_words(tiny_pipeline.tokenizer, FILTER, None) == []


def test_the_most_telling_word_of_a_text_without_the_concepts_words(lab: Target) -> None:
    text = "a cat next to a knife in the snow"
    start, end = most_telling(text, lab)
    assert text[start:end] == "knife"
    assert most_telling("", lab) == (0, 0)


def test_a_policy_learns_what_is_rewarded() -> None:
    policy = Policy(choices=6, length=2, width=8, learning_rate=0.05, seed=3)
    for _ in range(60):
        proposals = policy.propose(8)
        policy.learn(proposals, (proposals.actions == torch.tensor([4, 1])).float().sum(dim=1))
    late = policy.propose(200).actions
    assert (late == torch.tensor([4, 1])).all(dim=1).float().mean() > 0.8


def test_a_policys_proposals_are_distributed_as_it_says() -> None:
    policy = Policy(choices=3, length=2, width=8, learning_rate=0.1, seed=0)
    proposals = policy.propose(4000)
    assert proposals.values.shape == proposals.actions.shape == (4000, 2)
    for choice in range(3):
        drawn = proposals.actions[:, 0] == choice
        stated = proposals.log_probabilities[drawn, 0].exp()
        assert stated.std() < 1e-6
        assert drawn.float().mean() == pytest.approx(float(stated[0]), abs=0.03)


def test_specs(lab: Target) -> None:
    made = create_attack("sneakyprompt:n", LAB)
    assert made.identity.name == "sneakyprompt-n"
    assert (made.identity.side, made.identity.access) == ("text", "black box")
    assert json.loads(json.dumps(made.identity.settings)) == asdict(usual("n"))
    papers = create_attack("sneakyprompt:p").identity.settings
    assert (papers["queries"], papers["threshold"], papers["learning_rate"]) == (60, 0.26, 0.1)
    with pytest.raises(SafegenError, match="missing a required argument"):
        create_attack("sneakyprompt")
    with (
        pytest.raises(SafegenError, match="--clip"),
        create_attack("sneakyprompt:n", LAB).against(replace(lab, clip=no_clip())),
    ):
        pass
