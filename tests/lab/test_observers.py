"""Observers on the lab's own scenes: they record what detector, classifier and CLIP say."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from safegen.detectors import create_detector
from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.lab.classifier import classifier_identity, object_scores, place_scores
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.world import Mixture, draw_scenes
from safegen.observers import OBSERVERS, Sight, create_observer


@pytest.fixture(scope="module")
def sights() -> list[Sight]:
    """Eight scenes with their captions, and a picture that a filter blacked out."""
    scenes = draw_scenes(8, Mixture(), "held-out", seed=7)
    drawn = [Sight(scene.image, scene.recipe.caption) for scene in scenes]
    return [*drawn, Sight(np.zeros((64, 64, 3), np.uint8), "a knife at night")]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's CLIP as such models are published."""
    folder = tmp_path_factory.mktemp("clip") / "model"
    shutil.copytree(weights_folder() / "clip", folder)
    return folder


def test_detections_are_recorded(sights: list[Sight]) -> None:
    observer = create_observer("detector:lab")
    detector = create_detector("lab")
    seen = observer.observe(sights)
    expected = detector.detect([sight.image for sight in sights])
    assert any(expected)
    for observation, detections in zip(seen, expected, strict=True):
        assert json.loads(json.dumps(observation.values))["detections"] == [
            {"label": each.label, "score": each.score, "box": each.box and list(each.box)}
            for each in detections
        ]
        assert observation.features is None
    assert seen[-1].values == {"detections": []}
    assert not observer.compares
    assert observer.identity.name == "detector"
    assert observer.identity.settings == asdict(detector.identity)


def test_objects_are_recorded(sights: list[Sight]) -> None:
    observer = create_observer("objects:lab")
    seen = observer.observe(sights)
    expected = object_scores([sight.image for sight in sights])
    assert json.loads(json.dumps([each.values["scores"] for each in seen])) == expected
    assert observer.identity.settings == asdict(classifier_identity("objects"))


def test_the_place_asked_for_is_scored(sights: list[Sight]) -> None:
    sights = [*sights, Sight(sights[0].image, "words without a place")]
    scores = place_scores([sight.image for sight in sights])
    seen = [each.values["asked"] for each in create_observer("places:lab").observe(sights)]
    assert seen[-1] is None
    for value, found, sight in zip(seen[:-2], scores, sights, strict=False):
        assert value == next(found[n] for n, p in BACKGROUNDS.items() if p.text in sight.text)


def test_outlines_are_recorded_apart_from_detections(sights: list[Sight]) -> None:
    observer = create_observer("outlines:lab")
    judge = create_detector("lab:outline")
    found = judge.detect([sight.image for sight in sights])
    assert any(found)
    for observation, expected in zip(observer.observe(sights), found, strict=True):
        labels = [each["label"] for each in observation.values["detections"]]
        assert labels == [each.label for each in expected]
    assert observer.identity.name == "outlines"
    assert observer.identity.settings == asdict(judge.identity)


def test_clip_records_the_models_own_similarity(sights: list[Sight]) -> None:
    observer = create_observer("clip:lab")
    seen = observer.observe(sights)
    model = CLIPModel.from_pretrained(weights_folder() / "clip", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(weights_folder() / "tokenizer")
    tokens = tokenizer([sight.text for sight in sights], padding=True, return_tensors="pt")
    pixels = torch.from_numpy(np.stack([sight.image for sight in sights])).permute(0, 3, 1, 2)
    with torch.no_grad():
        answer = model(pixel_values=pixels / 127.5 - 1, **tokens)
        expected = (answer.logits_per_image / model.logit_scale.exp()).diagonal()
    cosines = [each.values["cosine"] for each in seen]
    np.testing.assert_allclose(cosines, expected.numpy(), atol=1e-4)
    features = np.stack([np.asarray(each.features) for each in seen])
    assert features.dtype == np.float32
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(units, answer.image_embeds.numpy(), atol=1e-4)


def test_clip_is_read_from_a_folder(sights: list[Sight], clip_folder: Path) -> None:
    lab, read = create_observer("clip:lab"), create_observer(f"clip:{clip_folder}")
    for one, other in zip(lab.observe(sights), read.observe(sights), strict=True):
        assert one.values == other.values
    settings = json.loads(json.dumps(read.identity.settings))
    assert lab.identity.settings == {"model": "lab", **settings}
    assert str(clip_folder) not in json.dumps(settings)


def test_what_is_no_clip_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    text_only = shutil.copytree(clip_folder, tmp_path / "text")
    shutil.copytree(weights_folder() / "text_encoder", text_only, dirs_exist_ok=True)
    bare = shutil.copytree(clip_folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    for place in (text_only, bare, tmp_path / "nowhere"):
        with pytest.raises(SafegenError, match=r"cannot be loaded as a CLIP model .*give a folder"):
            create_observer(f"clip:{place}")


@pytest.mark.parametrize(
    "spec", ["detector:lab", "outlines:lab", "objects:lab", "places:lab", "clip:lab"]
)
def test_no_picture_is_refused(spec: str) -> None:
    with pytest.raises(SafegenError, match="at least one"):
        create_observer(spec).observe([])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("detector", "follows a colon"),
        ("detector:labb", "Did you mean 'lab'"),
        ("objects:coco", "known: lab"),
        ("places:coco", "known: lab"),
        ("outlines:coco", "known: lab"),
        ("lab:1", "unknown name 'lab' among observers"),
    ],
)
def test_wrong_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        create_observer(spec)


def test_all_observers_are_listed() -> None:
    known = {"clip", "detector", "inception", "lpips", "objects", "outlines", "places"}
    assert known <= set(OBSERVERS.names())
