"""Settings of an edit: what is refused, and what presets and the paper's settings change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.presets import PRESETS
from safegen.editing.settings import EditSettings, Mixture
from safegen.errors import SafegenError
from safegen.settings import Option, options

NUMBERS = [
    option
    for option in options(EditSettings)
    if any(kind in str(option.kind) for kind in ("int", "float"))
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": "self-atention"}, "--scope must be .*; did you mean 'self-attention'?"),
        ({"scope": "self-attention+output", "lora_rank": 4}, "--lora-rank .*leave out --scope"),
        ({"objective": "magic"}, "--objective must be exact or paper, not 'magic'"),
        ({"objective": "paper"}, "set --guidance-scale to 1, not 5.0"),
        ({"preserve_target": "hope"}, "--preserve-target must be teacher or noise"),
        ({"precision": "no"}, "--precision must be fp32, bf16 or fp16, not 'no'"),
        ({"frozen_precision": "bf16"}, "give --precision bf16 too"),
        ({"precision": "bf16", "frozen_precision": "fp16"}, "give --precision fp16 too"),
        ({"lora_rank": 0}, "--lora-rank must be"),
        ({"gradient_checkpointing": "some"}, "--gradient-checkpointing must be none"),
        ({"steps": 0}, "--steps must be a whole number of at least 1, not 0"),
        ({"steps": 2.5}, "--steps must be a whole number of at least 1, not 2.5"),
        ({"seed": 2**63}, "--seed must be .* at most 9223372036854775807"),
        ({"unsafe_batch": 10**9}, "--unsafe-batch must be .* at most 1024"),
        ({"learning_rate": 0.0}, "--learning-rate must be a finite number above 0"),
        ({"final_rate": -0.5}, "--final-rate must be"),
        ({"warmup_steps": -1}, "--warmup-steps must be"),
        (
            {"guided_weight": -1.0},
            "--guided-weight must be a finite number of at least 0, not -1.0",
        ),
        ({"gamma": -1}, "--gamma must be a finite number above 0, not -1"),
        ({"single_gamma": 0.0}, "--single-gamma must be a finite number above 0"),
        ({"redirect_weight": 0.0}, "--redirect-weight must be"),
        ({"ema_decay": 1.0}, "--ema-decay must be a finite number of at least 0 and below 1"),
        ({"benign_batch": 0}, "--benign-batch must be"),
        ({"guidance_scale": 0.5}, "--guidance-scale must be"),
        ({"interpolation_range": (1.0, 0.5)}, "--interpolation-range must rise"),
        ({"interpolation_range": (1.0,)}, "--interpolation-range must be 2 numbers above 0"),
        ({"interpolation_range": "1,x"}, "--interpolation-range must be 2 numbers above 0"),
        ({"overshoot": -0.1}, "--overshoot must be"),
        ({"unsafe_noise": -1.0}, "--unsafe-noise must be"),
        ({"cutmix": 1.5}, "--cutmix must be"),
        ({"rehearsal_share": 0.5, "precision": "bf16"}, "give --frozen-precision fp32"),
        (
            {"rehearsal_share": 0.5, "precision": "fp16", "frozen_precision": "fp32"},
            "no loss scaling",
        ),
        ({"rehearsal_step_size": 0.0}, "--rehearsal-step-size must be"),
        ({"preserve_mixture": Mixture(empty=0.5, adversarial=0.5)}, "--preserve-mixture: advers"),
        ({"redirect_mixture": "empty=nan"}, "must sum to 1"),
        ({"guidance": 3.0}, "unknown setting 'guidance'; did you mean"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        EditSettings.of(**change)


@pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.name)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), True, "1"], ids=str)
def test_numbers_are_finite_numbers(option: Option, wrong: Any) -> None:
    value = (0.5, wrong) if "tuple" in str(option.kind) else wrong
    with pytest.raises(SafegenError, match=f"{option.flag} must be"):
        EditSettings.of(**{option.name: value})


def test_texts_mean_what_they_do_on_the_command_line() -> None:
    texts = {"interpolation_range": "0.5,1.5", "redirect_mixture": "empty=0.5, random=0.5"}
    settings = EditSettings.of(**texts)
    assert settings.redirect.interpolation_range == (0.5, 1.5)
    assert settings.redirect.mixture == Mixture(0.5, 0.5)
    assert Mixture.parse(str(settings.redirect.mixture)) == settings.redirect.mixture


def test_every_option_has_its_own_name_and_help() -> None:
    names = [option.name for option in options(EditSettings)]
    assert len(set(names)) == len(names)
    assert all(option.help.endswith(".") for option in options(EditSettings))


def test_a_preset_changes_what_it_is_for() -> None:
    ours = EditSettings.of(steps=7)
    assert ours.preset(None) == ours
    assert PRESETS["robust"].steps == 2
    assert ours.preset("robust") == ours.changed(
        steps=14,
        least_steps=1140,
        overshoot=0.3,
        scope="self-attention+output",
        single_gamma=4.0,
        unsafe_noise=8.0,
        rehearsal_share=0.8,
    )
    with pytest.raises(SafegenError, match="unknown preset 'strong'; known: robust"):
        ours.preset("strong")
    with pytest.raises(SafegenError, match="--preset robust changes what --objective paper"):
        EditSettings.paper().preset("robust")


def test_the_papers_settings() -> None:
    paper = EditSettings.paper()
    assert (paper.redirect.weight, paper.preserve.weight) == (0.1, 0.9)
    assert (paper.data.unsafe_batch, paper.optimisation.gradient_accumulation) == (1, 5)
    assert paper.optimisation.steps == 1000
    assert (paper.optimisation.optimizer, paper.optimisation.learning_rate) == ("adamw", 1e-5)
    assert all(paper.optimisation.schedule(step) == 1 for step in (0, 1, 500, 999))
    assert paper.redirect.mixture == Mixture(empty=1.0)


@given(steps=st.integers(2, 500), warmup=st.integers(0, 50))
def test_steps_shrink_over_the_second_half_of_each_cycle(steps: int, warmup: int) -> None:
    settings = EditSettings.of(steps=3 * steps, cycle=steps, warmup_steps=warmup).optimisation
    shares = [settings.schedule(step) for step in range(3 * steps)]
    assert all(0 < share <= 1 for share in shares)
    late = shares[max(warmup, steps // 2) : steps]
    assert late == sorted(late, reverse=True)
    if warmup <= steps:
        full = [2 * share for share in shares[steps : 2 * steps]]
        assert [3 * share for share in shares[2 * steps :]] == pytest.approx(full)


def test_mixture_is_parsed() -> None:
    assert Mixture.parse("empty=0.5, random=0.5") == Mixture(0.5, 0.5, 0.0)
    for wrong in ("empty=0.5", "empty=2,random=-1", "unsafe=1", "empty=x", "random=nan"):
        with pytest.raises(SafegenError):
            Mixture.parse(wrong)
