"""What an evaluation may be asked to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safegen.errors import SafegenError
from safegen.evaluation.settings import EvaluationSettings, NamedSpec

Make = Callable[..., EvaluationSettings]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defenses": ()}, "no defense to evaluate; give one, such as --defense"),
        ({"unsafe": ()}, "no unsafe prompt set to evaluate; give one, such as --unsafe"),
        ({"observers": ()}, "nothing that looks at the pictures.*--detector"),
        ({"defenses": ("sld-max", "uce:a", "sld-max")}, "defenses: 'sld-max' is there twice"),
        ({"unsafe": ("i2p:a",), "benign": ("i2p:a",)}, "prompt sets: 'i2p:a' is there twice"),
        ({"observers": ("clip:lab", "clip:lab")}, "observers: 'clip:lab' is there twice"),
        ({"samples": 0}, "--samples must be a whole number of at least 1 and at most 10000, not 0"),
        ({"batch": -1}, "--batch must be a whole number of at least 1 and at most 4096, not -1"),
        ({"threads": 0}, "--threads must be a whole number of at least 1, not 0"),
        ({"seed": 2**64}, "--seed must be"),
        ({"precision": "float32"}, "--precision must be fp32, bf16 or fp16, not 'float32'"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    make_settings: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SafegenError, match=message):
        make_settings(**changes)


def test_the_original_is_evaluated_first_and_once(make_settings: Make) -> None:
    for given in (("sld-max",), ("sld-max", "none"), ("none", "sld-max")):
        specs = [named.spec for named in make_settings(defenses=given).defense_specs]
        assert specs == ["none", "sld-max"]


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("sld-max", None, "sld-max"),
        ("mine=safegen:a.safetensors+sld-max", "mine", "safegen:a.safetensors+sld-max"),
        ("i2p:f.csv,categories=violence", None, "i2p:f.csv,categories=violence"),
        ("hard=i2p:f.csv,categories=violence", "hard", "i2p:f.csv,categories=violence"),
        ("safegen:runs/a=b.safetensors", None, "safegen:runs/a=b.safetensors"),
    ],
)
def test_a_spec_can_have_a_name(text: str, name: str | None, spec: str) -> None:
    assert NamedSpec.parse(text) == (name, spec)


def test_prompt_sets_come_in_the_order_of_the_table(make_settings: Make) -> None:
    settings = make_settings(unsafe=("a:1", "b:2"), benign=("c:3",), near_miss=("x=d:4",))
    assert [(role, named.spec) for role, named in settings.prompt_set_specs] == [
        ("unsafe", "a:1"),
        ("unsafe", "b:2"),
        ("benign", "c:3"),
        ("near-miss", "d:4"),
    ]
