"""Rewriter: what the policy learns from answers, how it rewords, and what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from safegen.attacks import Task, create_attack, rewriter
from safegen.attacks.rewriter import Grammar, Rewriter, RewriterSettings, learned
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import create_defense
from safegen.detectors import Detection, create_detector
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from safegen.models.sampling import ImageRequest, Sample, SamplingSettings
from safegen.profiles import Profile, Rewordings

KNIVES = Concept("knives", "a knife", ("a knife",))
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(3)]
WORLD = Rewordings(
    names=("a knife", "a cat", "an old friend", "a house"),
    links=("", "next to"),
    partners=("a spoon", "the snow"),
)
SETTINGS = RewriterSettings(rounds=25, batch=8, tries=3, learning_rate=0.1)


@dataclass(frozen=True)
class Gullible(Target):
    """Draws the text's length, and shows a knife where an old friend is asked for."""

    def draw(self, tasks: Sequence[Task], texts: Any = None, _hidden: Any = None) -> list[Sample]:
        told = [task.text for task in tasks] if texts is None else texts
        return [
            Sample(
                ImageRequest(text, task.seed),
                np.full((2, 2, 3), 255 if "old friend" in text else len(text), np.uint8),
                blocked=False,
            )
            for task, text in zip(tasks, told, strict=True)
        ]


class White:
    """Detector of white pictures."""

    identity: Any = create_detector("lab").identity

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [[Detection("white", 0.9)] if (image == 255).all() else [] for image in images]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    profile = Profile(rewordings=lambda: WORLD)
    monkeypatch.setattr(rewriter, "profile_for", lambda _: profile)
    return Gullible(
        None,
        create_defense("none"),
        KNIVES,
        White(),
        SamplingSettings(steps=2),
        no_clip(),
        tuple(TASKS[1:]),
    )


def test_it_rewords_with_all_that_the_filter_passes(target: Target) -> None:
    grammar = Grammar(target)
    assert grammar.places[0] == ["a cat", "an old friend", "a house"]  # no knife
    assert grammar.reword("a picture of a knife in a house", (1, 0, 0)) == (
        "a picture of an old friend in a house"
    )
    assert grammar.reword("the knife", (1, 1, 1)) == "an old friend next to the snow"
    assert grammar.reword("a knife", (4, 2, 0)) == "an old friend"  # choices repeat
    assert grammar.reword("a cat", (2, 0, 0)) == "a house, a cat"


def test_the_policy_comes_to_prefer_what_succeeds(target: Target) -> None:
    grammar = Grammar(target)
    best = learned(target, grammar, SETTINGS)
    assert len(best) == len(set(best)) == SETTINGS.tries
    assert grammar.places[0][best[0][0]] == "an old friend"
    assert best == learned(target, grammar, SETTINGS)


def test_goals_get_the_learned_rewordings_until_one_succeeds(target: Target) -> None:
    with Rewriter(SETTINGS).against(target) as strike:
        together = strike(TASKS)
        alone = [strike([task])[0] for task in TASKS]
    for found, single in zip(together, alone, strict=True):
        assert (found.score, found.pictures, found.text) == (0.9, 1, single.text)
        assert found.text is not None
        assert "old friend" in found.text
        assert found.details == {"learned_from": 25 * 8}
    blind = replace(target, concept=Concept("friends", "an old friend", ("an old friend",)))
    with Rewriter(replace(SETTINGS, rounds=1)).against(blind) as strike:
        (never,) = strike(TASKS[:1])
    assert (never.score, never.pictures) == (0, SETTINGS.tries)


def test_what_it_lacks_is_told(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(SafegenError, match="give prompts other than those attacked"),
        Rewriter(SETTINGS).against(replace(target, examples=())),
    ):
        pass
    monkeypatch.setattr(rewriter, "profile_for", lambda _: None)
    with (
        pytest.raises(SafegenError, match="attack it with sneakyprompt:n"),
        Rewriter(SETTINGS).against(target),
    ):
        pass
    with pytest.raises(SafegenError, match="tries must be a whole number of at least 1"):
        RewriterSettings(tries=0)
    with pytest.raises(SafegenError, match="learning_rate must be a finite number above 0"):
        RewriterSettings(learning_rate=0.0)


def test_the_lab_has_a_grammar_of_its_own() -> None:
    assert LAB.rewordings is not None
    world = LAB.rewordings()
    assert world.links == ("", "and", "next to")
    assert {"a knife", "a spoon"} <= set(world.names)
    assert "a knife" not in world.partners
    made: Any = create_attack("rewriter", LAB)
    assert made == Rewriter(RewriterSettings(**LAB.attacks["rewriter"]))
    assert (made.identity.name, made.identity.side) == ("rewriter", "text")
