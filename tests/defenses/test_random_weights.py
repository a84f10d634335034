"""The control without trained weights: seeded, of the same architecture, and first in a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from safegen.defenses import create_defense, defended
from safegen.errors import SafegenError
from safegen.patches.patch import Patch, apply, remove


def weights_under(pipeline: Any, spec: str) -> dict[str, torch.Tensor]:
    with defended(pipeline, create_defense(spec)):
        return {name: each.clone() for name, each in pipeline.unet.state_dict().items()}


def test_the_weights_are_those_of_the_seed(tiny_pipeline: Any) -> None:
    trained = tiny_pipeline.unet.state_dict()
    first, again, other = (
        weights_under(tiny_pipeline, f"random-weights{option}") for option in ("", "", ",seed=1")
    )
    assert {name: each.shape for name, each in first.items()} == {
        name: each.shape for name, each in trained.items()
    }
    assert all(torch.equal(each, again[name]) for name, each in first.items())
    name = "conv_in.weight"
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], trained[name])


def test_the_callers_draws_go_on_as_before(tiny_pipeline: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with defended(tiny_pipeline, create_defense("random-weights")):
        assert torch.equal(torch.rand(4), expected)


def test_it_guides_what_comes_after_it(
    tiny_pipeline: Any, knives: Any, pictures: Callable[..., np.ndarray]
) -> None:
    drawn = []
    for spec in ("random-weights", "random-weights+sld-max"):
        with defended(tiny_pipeline, create_defense(spec, knives)):
            drawn.append(pictures(tiny_pipeline))
    assert not np.array_equal(*drawn)


def test_a_patch_that_would_be_lost_is_refused(tiny_pipeline: Any, safegen_patch: Patch) -> None:
    apply(tiny_pipeline, safegen_patch)
    with pytest.raises(SafegenError, match="put random-weights on first"):
        create_defense("random-weights").apply(tiny_pipeline)
    remove(tiny_pipeline, safegen_patch)
    with pytest.raises(SafegenError, match="has to come first"):
        create_defense("none+random-weights")
