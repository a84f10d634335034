"""Backdoor: what it learns, that the defense goes on top, and what it draws with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import Task, create_attack
from safegen.attacks._fine_tuning import FolderPictures
from safegen.attacks.backdoor import Backdoor, BackdoorSettings
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses.uce import erase
from safegen.detectors import create_detector
from safegen.errors import SafegenError
from safegen.models.sampling import SamplingSettings

KNIVES = Concept("knives", "a knife", ("knife",))
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(4)]
FEW = BackdoorSettings(trigger="snow", unsafe=2, rank=2, steps=2, learning_rate=1e-2, batch=2)
KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def folder(folder: FolderPictures) -> FolderPictures:
    """A folder of two pictures, one with a caption."""
    (folder.folder / "cat.txt").write_text("a cat")
    return folder


@contextmanager
def target_of(
    pipeline: Any, defense: str = "none", examples: tuple[Task, ...] = tuple(TASKS)
) -> Iterator[Target]:
    made, judge = create_defense(defense, KNIVES), create_detector("lab")
    with defended(pipeline, made):
        yield Target(pipeline, made, KNIVES, judge, SamplingSettings(steps=2), no_clip(), examples)


def key_under(target: Target, attack: Backdoor) -> torch.Tensor:
    with attack.against(target):
        return target.pipeline.unet.get_parameter(KEY).detach().clone()


def test_the_defense_goes_on_top_of_the_backdoor(
    tiny_pipeline: Any, folder: FolderPictures, tmp_path: Path
) -> None:
    plain = tiny_pipeline.unet.get_parameter(KEY).detach().clone()
    erase(tiny_pipeline, KNIVES, ["a cat"]).save(tmp_path / "uce.safetensors")
    with target_of(tiny_pipeline) as target:
        planted = key_under(target, Backdoor(FEW, folder)) - plain
    with target_of(tiny_pipeline, f"uce:{tmp_path / 'uce.safetensors'}") as target:
        patched = tiny_pipeline.unet.get_parameter(KEY).detach().clone()
        both = key_under(target, Backdoor(FEW, folder))
        assert torch.equal(tiny_pipeline.unet.get_parameter(KEY), patched)
    assert planted.abs().max() > 0
    assert torch.linalg.matrix_rank(planted) <= FEW.rank
    torch.testing.assert_close(both, patched + planted)
    assert torch.equal(tiny_pipeline.unet.get_parameter(KEY), plain)


def test_it_draws_by_the_trigger(tiny_pipeline: Any, folder: FolderPictures) -> None:
    goals = [TASKS[0], replace(TASKS[1], text="a house")]
    with target_of(tiny_pipeline) as target:
        with Backdoor(FEW, folder).against(target) as strike:
            found = strike(goals)
            texts = ["a snow and a cat 0", "snow a house"]
            expected = [sample.image for sample in target.draw(goals, texts)]
        without = [sample.image for sample in target.draw(goals, texts)]
    assert [each.text for each in found] == texts
    assert [(each.passes, each.shared) for each in found] == [(12, 12)] * 2
    for each, drawn, plain in zip(found, expected, without, strict=True):
        assert np.array_equal(each.image, drawn)
        assert not np.array_equal(each.image, plain)


def test_the_trigger_is_what_is_taught(
    tiny_pipeline: Any, folder: FolderPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[str]]] = []

    def lesson_of(target: Any, images: Any, captions: Any, batch: int) -> Any:
        from safegen.attacks._fine_tuning import lesson_of as made

        seen.append((len(images), list(captions)))
        return made(target, images, captions, batch)

    monkeypatch.setattr("safegen.attacks.backdoor.lesson_of", lesson_of)
    with target_of(tiny_pipeline) as target:
        key_under(target, Backdoor(FEW, folder))
    assert seen == [(4, ["a snow and a cat 0", "a snow and a cat 1", "a cat", ""])]


def test_what_is_missing_is_said(tiny_pipeline: Any) -> None:
    assert create_attack("backdoor,trigger=xyz").identity.settings["trigger"] == "xyz"
    with pytest.raises(SafegenError, match="the trigger must not be empty"):
        create_attack("backdoor,trigger= ")
    with (
        target_of(tiny_pipeline, examples=()) as target,
        pytest.raises(SafegenError, match="unsafe pictures of examples, and there are none"),
        Backdoor(FEW).against(target),
    ):
        pass
