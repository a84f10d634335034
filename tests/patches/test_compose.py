from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import safegen
from safegen.errors import SafegenError
from safegen.models.anatomy import self_attention_names
from safegen.patches.compose import combine
from safegen.patches.patch import Patch

NUMBERS = st.floats(-4, 4).filter(lambda value: abs(value) > 1e-3)


def _patch(values: dict[str, float], **metadata: Any) -> Patch:
    return Patch({name: torch.full((2, 3), value) for name, value in values.items()}, metadata)


@given(first=NUMBERS, second=NUMBERS, scale=NUMBERS)
def test_differences_are_summed_and_scaled(first: float, second: float, scale: float) -> None:
    total = combine([_patch({"a": first, "b": first}), _patch({"c": second, "b": first})], scale)
    expected = {"a": first, "b": 2 * first, "c": second}
    assert {name: float(value[0, 0]) for name, value in total.differences.items()} == {
        name: pytest.approx(scale * value, rel=1e-5) for name, value in expected.items()
    }


def test_one_patch_at_full_scale_is_itself() -> None:
    patch = _patch({"a": 1.0}, concept="knives")
    assert combine([patch]) is patch


def test_it_says_what_it_is_made_of() -> None:
    knives, axes = _patch({"a": 1.0}, concept="knives"), _patch({"a": 2.0}, concept="axes")
    total = combine([knives, axes, knives], 0.5)
    assert total.metadata["concept"] == "knives and axes"
    assert total.metadata["combined"]["scale"] == 0.5
    assert [each["concept"] for each in total.metadata["combined"]["patches"]] == [
        "knives",
        "axes",
        "knives",
    ]


def test_a_sum_goes_on_and_comes_off(tiny_pipeline: Any) -> None:
    parameters = dict(tiny_pipeline.unet.named_parameters())
    names = self_attention_names(tiny_pipeline.unet)[:2]
    first, second = (Patch({n: torch.ones(parameters[n].shape) for n in names}) for _ in "12")
    total = combine([first, second], 0.25)
    before = {name: parameters[name].detach().clone() for name in names}
    with pytest.warns(match="measure its effect"):
        safegen.apply(tiny_pipeline, total)
    for name in names:
        torch.testing.assert_close(parameters[name].detach(), before[name] + 0.5)
    safegen.remove(tiny_pipeline, total)
    assert all(torch.equal(parameters[name], before[name]) for name in names)


@pytest.mark.parametrize(
    ("patches", "scale", "message"),
    [
        ([], 1.0, "no patch given"),
        ([_patch({"a": 1.0})], 0.0, "other than 0"),
        ([_patch({"a": 1.0})], float("inf"), "other than 0"),
        ([_patch({"a": 1.0})], 1e300, r"the scale 1e\+300 makes a infinite"),
        ([_patch({"a": 1.0}), Patch({"a": torch.ones(3)})], 1.0, "different architectures"),
        ([_patch({"a": 1.0}), _patch({"a": 1.0}, method="uce")], 1.0, "different methods"),
        ([_patch({"a": 1.0}), _patch({"a": -1.0})], 1.0, "changes no weight"),
    ],
)
def test_what_does_not_add_up_is_refused(patches: list[Patch], scale: float, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        combine(patches, scale)
