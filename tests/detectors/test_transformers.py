"""Image classifiers of transformers: a real, tiny ViT with random weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from safegen.detectors import create_detector
from safegen.errors import SafegenError

LABELS = ("drawing", "nsfw", "hentai, or so")


def save_classifier(folder: Path, **options: Any) -> Path:
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: column for column, label in enumerate(LABELS)},
        **options,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifiers") / "vit")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16 + 8 * i, 32, 3), np.uint8) for i in range(5)]


def logits_of(folder: Path, pictures: list[np.ndarray]) -> torch.Tensor:
    """Answers (N, labels), one picture at a time and prepared by hand."""
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(folder).eval()
    rows = []
    for picture in pictures:
        resized = Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            rows.append(model(pixels.float() / 127.5 - 1).logits)
    return torch.cat(rows)


def test_scores_are_the_softmax_of_the_unsafe_labels(
    classifier: Path, pictures: list[np.ndarray]
) -> None:
    detector = create_detector(f"transformers:{classifier},unsafe=nsfw+drawing", threshold=0.0)
    expected = logits_of(classifier, pictures).softmax(dim=1)
    for found, row in zip(detector.detect(pictures), expected, strict=True):
        assert {d.label: d.score for d in found} == pytest.approx(
            {"drawing": float(row[0]), "nsfw": float(row[1])}, abs=1e-5
        )
        assert found[0].score >= found[1].score
        assert found[0].box is None


def test_several_labels_at_once_are_sigmoids(pictures: list[np.ndarray], tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "many", problem_type="multi_label_classification")
    expected = logits_of(folder, pictures).sigmoid()[:, 1]
    found = create_detector(f"transformers:{folder},unsafe=nsfw", threshold=0.0).detect(pictures)
    assert [d.score for (d,) in found] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_settings_file_makes_a_detector(
    classifier: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    save_classifier(tmp_path / "model")
    fields = {
        "model": "model",
        "unsafe_labels": [LABELS[2]],
        "threshold": 0.5,
        "name": "mine",
        "batch_size": 2,
    }
    (tmp_path / "mine.json").write_text(json.dumps(fields))
    detector = create_detector(f"transformers:{tmp_path}/mine.json")
    assert (detector.identity.name, detector.identity.threshold) == ("mine", 0.5)
    scores = logits_of(classifier, pictures).softmax(dim=1)[:, 2]
    assert 0 < sum(scores >= 0.5) < len(pictures)
    found = detector.detect(pictures)
    assert [bool(detections) for detections in found] == [bool(s >= 0.5) for s in scores]


def test_what_is_recorded(classifier: Path, tmp_path: Path) -> None:
    identity = create_detector(f"transformers:{classifier},unsafe=nsfw", threshold=0.7).identity
    digest = hashlib.sha256((classifier / "model.safetensors").read_bytes()).hexdigest()
    assert identity.file_hash == digest
    assert (identity.name, identity.threshold) == ("transformers", 0.7)
    assert identity.labels == ("nsfw",)
    other = save_classifier(tmp_path / "other")
    processor = other / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("0.5", "0.4", 1))
    changed = create_detector(f"transformers:{other},unsafe=nsfw").identity
    assert (changed.file_hash, changed.version) == (digest, changed.version)
    assert changed.version != identity.version


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "say once which of its labels count as unsafe"),
        (",unsafe=", "unsafe must be one or more joined by [+], not ''"),
        (",unsafe=nsfw+nsfw", "name each class once"),
        (",unsafe=porn", "porn are not among those of .*: drawing, nsfw, hentai"),
    ],
)
def test_labels_that_make_no_sense_are_refused(
    classifier: Path, options: str, message: str
) -> None:
    with pytest.raises(SafegenError, match=message):
        create_detector(f"transformers:{classifier}{options}")


def test_a_bad_settings_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for content, message in (
        ('{"model": "x"}', "at least model and unsafe_labels"),
        ('{"model": "x", "unsafe_labels": ["a"], "label": 1}', "unknown label; known: model"),
        ('{"model": "x", "unsafe_labels": "a"}', "must be a list"),
        ('{"model": 3, "unsafe_labels": ["a"]}', "model must be a text, not 3"),
        ('{"model": "x", "unsafe_labels": ["a"], "batch_size": 0}', "batch_size must be"),
    ):
        file.write_text(content)
        with pytest.raises(SafegenError, match=message):
            create_detector(f"transformers:{file}")


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_classifier(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    headless = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(headless, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SafegenError, match="it lacks 2 weights"):
        create_detector(f"transformers:{folder},unsafe=nsfw")
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(SafegenError, match="truncated"):
        create_detector(f"transformers:{folder},unsafe=nsfw")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(SafegenError, match="is a pickle"):
        create_detector(f"transformers:{folder},unsafe=nsfw")


def test_scores_that_are_not_finite_never_pass_for_safe(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_classifier(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SafegenError, match="not finite"):
        create_detector(f"transformers:{folder},unsafe=nsfw").detect(pictures)
