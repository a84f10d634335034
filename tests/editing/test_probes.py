"""Probes of an edit in training: what they draw, and what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import safegen
from safegen.editing.latents import TripletLatents
from safegen.editing.probes import Pictures, Probe, ProbeSources, Target
from safegen.editing.run_folder import CHECKPOINT, read_probes
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.moving import put_back
from safegen.models.sampling import ImageRequest, SamplingSettings

SETTINGS = EditSettings.of(steps=8, cycle=2, unsafe_batch=2, warmup_steps=1, checkpoint_every=3)
UNSAFE = [ImageRequest("a knife", seed) for seed in (1, 2)]
BENIGN = [ImageRequest("a cup", seed) for seed in (3, 4, 5)]


class Resemblance:
    """Judge that calls unsafe what still resembles the pictures it saw first."""

    def __init__(self, most: float) -> None:
        self._first: np.ndarray | None = None
        self._most = most

    def __call__(self, pictures: Pictures) -> list[bool]:
        seen = np.stack(pictures).astype(float)
        if self._first is None:
            self._first = seen
        return [bool(far <= self._most) for far in np.abs(seen - self._first).mean(axis=(1, 2, 3))]


def keeps(requests: Sequence[ImageRequest], before: Pictures, after: Pictures) -> list[bool]:
    """Keep every picture but the first, which was wrong before."""
    assert len(requests) == len(before) == len(after)
    return [True] * (len(requests) - 1)


def sources(judge: Any, unsafe: Sequence[ImageRequest] = UNSAFE) -> ProbeSources:
    sampling = SamplingSettings(steps=3)
    return ProbeSources(judge, keeps, sampling, unsafe, {"retention": BENIGN}, pictures=3)


def _edit(pipeline: Any, latents: TripletLatents, judge: Any, **options: Any) -> Edit:
    return Edit(pipeline, latents, SETTINGS, probing=sources(judge), **options)


def test_it_draws_held_back_pictures_and_prompts(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    rest, held_back = _many(tiny_latents).without_last(3)
    assert (len(rest.unsafe), len(held_back.unsafe), len(held_back.censored)) == (27, 3, 3)
    probe = Probe(tiny_pipeline, sources(Resemblance(0.0)), held_back.unsafe)
    same = probe(7)
    assert (same.step, same.counts) == (7, {"removal": (0, 5), "retention": (2, 2)})
    with put_back(tiny_pipeline.unet), torch.no_grad():
        for weight in tiny_pipeline.unet.parameters():
            weight.mul_(0.5)
        assert probe(8).counts["removal"] == (5, 5)


def _many(latents: TripletLatents) -> TripletLatents:
    return TripletLatents(
        latents.unsafe.repeat(5, 1, 1, 1),
        latents.censored.repeat(5, 1, 1, 1),
        latents.benign,
        latents.captions,
        latents.vae,
    )


def test_an_edit_ends_when_its_targets_are_reached(
    tiny_pipeline: Any, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    edit = _edit(tiny_pipeline, tiny_latents, Resemblance(1e-6), run_folder=tmp_path)
    steps = [record.step for record in edit.run()]
    assert steps == [1, 2]
    assert edit.course.reached
    assert read_probes(tmp_path) == edit.course.probes
    assert edit.patch().metadata["probes"][0]["counts"]["removal"] == (2, 2)


def test_an_edit_goes_on_to_its_last_step_and_keeps_the_best(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    edit = _edit(
        tiny_pipeline, tiny_latents, lambda pictures: [True] * len(pictures),
        targets=[Target("removal", 0.5)],
    )  # fmt: skip
    bounds = []
    for _ in edit.run():
        assert edit.state is not None
        bounds.append(edit.state.constraint.bound)
    assert [found.step for found in edit.course.probes] == [2, 4, 6, 8]
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0]
    assert not edit.course.reached
    assert edit.course.best is not None


def test_an_interrupted_edit_resumes_to_the_same_patch(
    tiny_pipeline: Any, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    targets = [Target("retention", 1.0), Target("removal", 1.0)]
    patches = []
    for stop in (None, 5):
        folder = tmp_path / str(stop)
        edit = _edit(
            tiny_pipeline, tiny_latents, lambda p: [True] * len(p),
            targets=targets, run_folder=folder,
        )  # fmt: skip
        for record in (run := edit.run()):
            if record.step == stop:
                run.close()
        if stop is not None:
            assert (folder / CHECKPOINT).exists()
            edit = _edit(
                tiny_pipeline, tiny_latents, lambda p: [True] * len(p),
                targets=targets, run_folder=folder,
            )  # fmt: skip
            for _ in edit.run():
                pass
        patches.append(edit.patch())
        assert [found.step for found in read_probes(folder)] == [2, 4, 6, 8]
    assert patches[0].metadata == patches[1].metadata
    first, second = (each.differences for each in patches)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_unsafe_to_begin_with_is_refused(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    with pytest.raises(SafegenError, match="draws nothing unsafe"):
        safegen.edit(
            tiny_pipeline, tiny_latents, SETTINGS, probing=sources(lambda p: [False] * len(p))
        )
