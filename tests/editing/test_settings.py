from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.settings import PRESETS, EditSettings, Mixture
from safegen.errors import SafegenError


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "everything"},
        {"scope": "self-attention+output", "lora_rank": 4},
        {"objective": "magic"},
        {"preservation": "hope"},
        {"precision": "fp8"},
        {"steps": 0},
        {"learning_rate": 0.0},
        {"redirect_weight": 0.0},
        {"average_decay": 1.0},
        {"benign_batch": 0},
        {"guidance": 0.5},
        {"objective": "paper"},
        {"strengths": (1.0, 0.5)},
        {"overshoot": -0.1},
        {"unsafe_noise": -1.0},
        {"single_gamma": 0.0},
        {"patchwork": 1.5},
        {"rehearsal": -0.1},
        {"rehearsal": 0.5, "precision": "bf16"},
        {"rehearsal": 0.5, "precision": "fp16", "frozen_precision": "no"},
        {"rehearsal_rate": 0.0},
        {"preserve_mixture": Mixture(empty=0.5, adversarial=0.5)},
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SafegenError):
        replace(EditSettings(), **change)


def test_a_preset_changes_what_it_is_for() -> None:
    ours = replace(EditSettings.lab(), steps=7)
    assert ours.preset(None) == ours
    assert PRESETS["robust"].steps == 4.5
    assert ours.preset("robust") == replace(
        ours,
        steps=32,
        scope="self-attention+output",
        single_gamma=4.0,
        unsafe_noise=8.0,
        overshoot=0.3,
        preserve_weight=3.2,
        rehearsal=0.8,
    )
    with pytest.raises(SafegenError, match="unknown preset 'strong'; known: robust"):
        ours.preset("strong")


def test_the_papers_settings() -> None:
    paper = EditSettings.paper()
    assert (paper.redirect_weight, paper.preserve_weight) == (0.1, 0.9)
    assert (paper.steps, paper.batch, paper.accumulation) == (1000, 1, 5)
    assert all(paper.rate(step) == 1e-5 for step in (0, 1, 500, 999))
    assert paper.redirect_mixture == Mixture(empty=1.0)


@given(steps=st.integers(2, 500), warmup=st.integers(1, 50))
def test_rate_stays_within_its_bounds(steps: int, warmup: int) -> None:
    settings = replace(EditSettings(), steps=steps, warmup=warmup)
    rates = [settings.rate(step) for step in range(steps)]
    assert all(0 < rate <= settings.learning_rate * (1 + 1e-9) for rate in rates)
    late = rates[max(warmup, steps // 2) :]
    assert late == sorted(late, reverse=True)


def test_mixture_is_parsed() -> None:
    assert Mixture.parse("empty=0.5, random=0.5") == Mixture(0.5, 0.5, 0.0)
    for wrong in ("empty=0.5", "empty=2,random=-1", "unsafe=1", "empty=x"):
        with pytest.raises(SafegenError):
            Mixture.parse(wrong)
