"""Merging and quantisation: what they do to weights, that it is undone, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from safegen.attacks import Attack, Task, create_attack
from safegen.attacks.quantise import rounded
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, create_defense, defended
from safegen.detectors import create_detector
from safegen.models.sampling import SamplingSettings

KNIVES = Concept("knives", "a knife")
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(2)]


class Doubled(Defense):
    """Defense that doubles the first convolution."""

    identity = DefenseIdentity("doubled", {})

    def attach(self, pipeline: Any) -> Callable[[], None]:
        weight = pipeline.unet.conv_in.weight.data
        before = weight.clone()
        weight.mul_(2)

        def undo() -> None:
            weight.copy_(before)

        return undo


@contextmanager
def target_of(pipeline: Any, defense: Defense) -> Iterator[Target]:
    judge = create_detector("lab")
    sampling = SamplingSettings(steps=2)
    with defended(pipeline, defense):
        yield Target(pipeline, defense, KNIVES, judge, sampling, no_clip(), ())


def weight_under(attack: Attack, pipeline: Any, defense: Defense) -> torch.Tensor:
    with target_of(pipeline, defense) as target, attack.against(target):
        weight: torch.Tensor = pipeline.unet.conv_in.weight.detach().clone()
    return weight


def test_a_merge_is_a_mean_and_is_undone(tiny_pipeline: Any) -> None:
    before = tiny_pipeline.unet.conv_in.weight.detach().clone()
    for share in (0.25, 0.75):
        merged = weight_under(create_attack(f"merge:{share}"), tiny_pipeline, Doubled())
        torch.testing.assert_close(merged, (2 - share) * before)
        assert torch.equal(tiny_pipeline.unet.conv_in.weight, before)


def test_the_goals_are_drawn_with_the_changed_weights(tiny_pipeline: Any) -> None:
    defense = create_defense("none", KNIVES)
    with target_of(tiny_pipeline, defense) as target:
        plain = [sample.image for sample in target.draw(TASKS)]
        with create_attack("merge:0.5").against(target) as strike:
            same = strike(TASKS)
        with create_attack("quantise:2").against(target) as strike:
            coarse = strike(TASKS)
    assert all(np.array_equal(a, each.image) for a, each in zip(plain, same, strict=True))
    assert not any(np.array_equal(a, each.image) for a, each in zip(plain, coarse, strict=True))
    assert [each.pictures for each in same] == [1, 1]


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_rounding_is_to_the_nearest_level_and_once(bits: int, seed: int) -> None:
    weight = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    once = rounded(weight, bits)
    step = weight.flatten(1).abs().amax(dim=1) / (2 ** (bits - 1) - 1)
    assert bool(((once - weight).flatten(1).abs().amax(dim=1) <= 0.5001 * step).all())
    assert all(len(row.unique()) <= 2**bits - 1 for row in once.flatten(1))
    torch.testing.assert_close(rounded(once, bits), once)


def test_a_weight_of_zeros_stays() -> None:
    assert not rounded(torch.zeros(2, 3), 8).any()


def test_their_names_tell_how_much() -> None:
    assert create_attack("merge:0.25").identity.name == "merge-0.25"
    assert create_attack("quantise:4").identity.name == "quantise-4"
