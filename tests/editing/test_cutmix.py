from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.batches import BatchSource
from safegen.editing.cutmix import SIDES, rectangles
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings

QUICK = EditSettings.of(steps=2, unsafe_batch=8, warmup_steps=1, cutmix=1.0)


@given(
    count=st.integers(1, 20),
    height=st.integers(4, 70),
    width=st.integers(4, 70),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_each_mask_is_one_rectangle_or_none(
    count: int, height: int, width: int, share: float, seed: int
) -> None:
    masks = rectangles(count, height, width, share, torch.Generator().manual_seed(seed))
    assert masks.shape == (count, 1, height, width)
    for mask in masks[:, 0]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        for places in (rows, columns):
            inside = places.nonzero().flatten()
            assert len(inside) == 0 or int(inside[-1] - inside[0]) == len(inside) - 1
            assert len(inside) <= SIDES[1] * len(places) + 1
        assert bool(mask.any()) <= (share > 0)


def test_the_share_is_kept() -> None:
    masks = rectangles(4000, 16, 16, 0.3, torch.Generator().manual_seed(0))
    assert abs(float(masks.flatten(1).any(dim=1).float().mean()) - 0.3) < 0.03


def test_a_pair_is_patched_in_one_place(tiny_pipeline: Any, tiny_latents: TripletLatents) -> None:
    unsafe, _ = _halves(tiny_pipeline, _numbered(tiny_latents))
    picture, censored = unsafe.clean.flatten(1), unsafe.target[:, 0].flatten(1)
    torch.testing.assert_close(censored, picture + 100)
    assert (picture != picture[:, :1]).any(dim=1).sum() > len(picture) / 2


def test_benign_pictures_are_patched_only_with_a_teacher(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    numbered = _numbered(tiny_latents)
    _, taught = _halves(tiny_pipeline, numbered)
    _, true = _halves(tiny_pipeline, numbered, preserve_target="noise")
    patched = [(half.clean.flatten(1).std(dim=1) > 0).any() for half in (taught, true)]
    assert patched == [True, False]


def _numbered(latents: TripletLatents) -> TripletLatents:
    """Pictures of one number each, its own; their censored form is that number and 100."""
    numbers = torch.arange(len(latents.unsafe)).float().view(-1, 1, 1, 1)
    unsafe = numbers.expand(latents.unsafe.shape).clone()
    benign = torch.arange(len(latents.benign)).float().view(-1, 1, 1, 1)
    return replace(
        latents,
        unsafe=unsafe,
        censored=unsafe + 100,
        benign=benign.expand(latents.benign.shape).clone(),
    )


def _halves(pipeline: Any, latents: TripletLatents, **changes: Any) -> Any:
    settings = QUICK.changed(interpolation_range=(1.0, 1.0), **changes)
    return BatchSource(pipeline, latents, settings).halves(0, 0)
