"""Drawing for the page: like the command line's, under any defense, and from a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safegen.errors import SafegenError
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.play.drawing import Easel, Wish

WISH = Wish("a cat", seed=3, steps=2)


def test_the_original_is_what_the_command_line_draws(
    make_easel: Callable[..., Easel], tiny_pipeline: Any
) -> None:
    drawn = make_easel().draw("none", WISH)
    request = ImageRequest("a cat", 3)
    ((_, image),) = generate(tiny_pipeline, [request], SamplingSettings(steps=2))
    assert np.array_equal(drawn.image, image)


def test_a_defense_acts_on_its_own_picture_alone(make_easel: Callable[..., Easel]) -> None:
    easel = make_easel()
    before = easel.draw("none", WISH).image
    random = easel.draw("random-weights", WISH).image
    assert not np.array_equal(before, random)
    assert np.array_equal(before, easel.draw("none", WISH).image)


def test_a_weak_start_stays_near_the_given_picture(make_easel: Callable[..., Easel]) -> None:
    easel, rng = make_easel(), np.random.default_rng(0)
    picture = rng.integers(0, 256, (20, 30, 3), np.uint8)
    wish = replace(WISH, steps=20, picture=picture)
    weak, strong, other = (
        easel.draw("none", replace(wish, strength=strength, seed=seed)).image.astype(int)
        for strength, seed in ((0.05, 3), (1.0, 3), (0.05, 4))
    )
    assert np.abs(weak - other).mean() < np.abs(weak - strong).mean()


@pytest.mark.parametrize(
    ("threshold", "flagged", "hidden"), [(None, None, True), (0.0, True, True), (2.0, False, False)]
)
def test_what_is_flagged_or_judged_by_nobody_is_hidden(
    make_easel: Callable[..., Easel], threshold: float | None, flagged: bool | None, hidden: bool
) -> None:
    drawn = make_easel(threshold).draw("none", WISH)
    assert (drawn.flagged, drawn.hidden) == (flagged, hidden)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "there is no prompt"),
        ({"prompt": "a" * 3000}, "3000 characters"),
        ({"seed": -1}, "the seed must be"),
        ({"steps": 0}, "the steps must be"),
        ({"strength": float("nan")}, "the strength must be"),
    ],
)
def test_a_wish_that_cannot_be_drawn_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        replace(WISH, **changes)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("sld-maxx", "Did you mean"), ("safegen:none.safetensors", "none.safetensors")],
)
def test_a_wrong_defense_says_why_and_leaves_the_model(
    make_easel: Callable[..., Easel], spec: str, message: str
) -> None:
    easel = make_easel()
    with pytest.raises(SafegenError, match=message):
        easel.check(spec)
    easel.check("none")
