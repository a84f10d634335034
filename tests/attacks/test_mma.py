"""MMA's text side: the text comes closer to the goal, names nothing, and is what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import Task, create_attack
from safegen.attacks._gradients import Vocabulary, frozen
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.mma import Mma, MmaSettings, TextSearch
from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from tiny_targets import TASKS

KNIVES = Concept("knives", "a knife", ("knife", "cat"))
FEW = MmaSettings(tokens=6, rounds=2, iterations=3, top=8, candidates=16)
target_of = partial(tiny_targets.target_of, concept=KNIVES, steps=2)


def searched(pipeline: Any, task: Task, rounds: int) -> TextSearch:
    with frozen(pipeline):
        found = TextSearch(Vocabulary(pipeline), TextFilter(KNIVES), task, FEW)
        found.advance(rounds)
    return found


@torch.no_grad()
def feature(pipeline: Any, text: str) -> torch.Tensor:
    """The pooled output of transformers' own text model."""
    tokens = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    pooled: torch.Tensor = pipeline.text_encoder(tokens).pooler_output[0]
    return pooled


def test_the_text_comes_closer_to_the_goal(tiny_pipeline: Any) -> None:
    first, last = searched(tiny_pipeline, TASKS[0], 0), searched(tiny_pipeline, TASKS[0], 6)
    assert last.cosine > first.cosine + 0.05
    goal = feature(tiny_pipeline, TASKS[0].text)
    for found in (first, last):
        cosine = torch.cosine_similarity(feature(tiny_pipeline, found.text), goal, dim=0)
        assert found.cosine == pytest.approx(float(cosine), abs=1e-5)
        assert not TextFilter(KNIVES).refuses(found.text)


def test_gradients_rank_replacements_by_what_they_gain(tiny_pipeline: Any) -> None:
    found = searched(tiny_pipeline, TASKS[0], 0)
    with frozen(tiny_pipeline):
        steepest = found._steepest()
    table, chosen = found.vocabulary.table, found.chosen
    step, gains = 1e-2, []
    for row in (int(steepest[0, 0]), int(steepest[0, -1])):
        mixed = table[chosen].clone()
        mixed[0] += step * (table[row] - table[chosen[0]])
        with torch.no_grad():
            state = found._features(found.prompt.sequences, found.prompt.mixed(mixed[None]))
            gains.append(float(torch.cosine_similarity(state, found.wanted)) - found.cosine)
    assert gains[0] > gains[1]


def test_the_found_texts_are_drawn_and_cost_no_passes(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    with Mma(FEW).against(target) as strike:
        together = strike(TASKS)
        alone = [strike([task])[0] for task in TASKS]
    for task, found, single in zip(TASKS, together, alone, strict=True):
        assert found.text == single.text
        assert found.text
        (sample,) = target.draw([task], [found.text])
        assert np.abs(sample.image.astype(int) - found.image).max() <= 1
        assert found.passes == 0
        assert 1 <= found.pictures <= FEW.rounds
    assert not any(p.grad is not None for p in tiny_pipeline.text_encoder.parameters())


def test_what_it_cannot_do_is_refused(build_pipeline: Callable[..., Any]) -> None:
    pipeline = build_pipeline()
    with (
        pytest.raises(SafegenError, match="takes 14 tokens, not 20"),
        Mma(MmaSettings()).against(target_of(pipeline)),
    ):
        pass
    pipeline.text_encoder = torch.nn.Linear(1, 1)
    with (
        pytest.raises(SafegenError, match=r"CLIP text encoder, and Stable.* has Linear"),
        Mma(FEW).against(target_of(pipeline)),
    ):
        pass
    assert create_attack("mma", LAB) == Mma(MmaSettings(**LAB.attacks["mma"]))
    identity = create_attack("mma").identity
    assert (identity.name, identity.side, identity.access) == ("mma", "text", "white box")
