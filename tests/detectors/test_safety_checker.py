"""The safety checker as a detector decides what the checker itself decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safegen.detectors import create_detector
from safegen.errors import SafegenError

COUNT = 48
SaveChecker = Callable[..., Path]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Blocks of colour of several sizes."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
    sides = [16 + 8 * (index % 3) for index in range(COUNT)]
    return [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
        for image, side in zip(small, sides, strict=True)
    ]


@pytest.fixture
def save_checker(tmp_path: Path) -> SaveChecker:
    """Saves a checker of the published shape whose concepts are some pictures' own features."""

    def save(pictures: list[np.ndarray], threshold: float, special_threshold: float) -> Path:
        from diffusers.pipelines.stable_diffusion.safety_checker import (
            StableDiffusionSafetyChecker,
        )
        from transformers import CLIPConfig

        from safegen.models.clip_features import ImageNormalisation
        from safegen.models.safety_checker import image_processor

        torch.manual_seed(0)
        vision = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        }
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
        processor = image_processor(checker.config, ImageNormalisation((0.5,) * 3, (0.5,) * 3))
        inputs = processor([Image.fromarray(image) for image in pictures], return_tensors="pt")
        with torch.no_grad():
            features = checker.visual_projection(checker.vision_model(inputs.pixel_values)[1])
            features = features - 0.95 * features.mean(0)  # else all are nearly one
            checker.concept_embeds.copy_(features[:17])
            checker.special_care_embeds.copy_(features[17:20])
            checker.concept_embeds_weights.fill_(threshold)
            checker.special_care_embeds_weights.fill_(special_threshold)
        checker.save_pretrained(tmp_path / "checker")
        processor.save_pretrained(tmp_path / "checker")
        return tmp_path / "checker"

    return save


def decisions_of_the_checker(folder: Path, pictures: list[np.ndarray]) -> list[bool]:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    checker = StableDiffusionSafetyChecker.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    inputs = processor([Image.fromarray(image) for image in pictures], return_tensors="pt")
    black = [np.zeros((1, 1, 3))] * len(pictures)
    return [bool(flag) for flag in checker(clip_input=inputs.pixel_values, images=black)[1]]


def scores(folder: Path, pictures: list[np.ndarray]) -> np.ndarray:
    detector = create_detector(f"safety-checker:{folder}", threshold=0.0)
    return np.array([found[0].score for found in detector.detect(pictures)])


def middle_threshold(save_checker: SaveChecker, pictures: list[np.ndarray]) -> float:
    """A cosine that about half of the pictures exceed."""
    return float(2 * np.median(scores(save_checker(pictures, 0.0, 2.0), pictures)) - 1)


@pytest.mark.parametrize("special_threshold", [2.0, 0.3, -2.0], ids=["never", "some", "always"])
def test_decides_as_the_checker_does(
    save_checker: SaveChecker, pictures: list[np.ndarray], special_threshold: float
) -> None:
    threshold = middle_threshold(save_checker, pictures)
    folder = save_checker(pictures, threshold, special_threshold)
    expected = decisions_of_the_checker(folder, pictures)
    assert 0 < sum(expected) < COUNT
    found = create_detector(f"safety-checker:{folder}").detect(pictures)
    assert [bool(detections) for detections in found] == expected


def test_special_care_raises_every_score_by_its_margin(
    save_checker: SaveChecker, pictures: list[np.ndarray]
) -> None:
    threshold = middle_threshold(save_checker, pictures)
    plain = scores(save_checker(pictures, threshold, 2.0), pictures)
    careful = scores(save_checker(pictures, threshold, -2.0), pictures)
    np.testing.assert_allclose(careful - plain, 0.01 / 2, atol=0.00051)


def test_what_is_recorded(save_checker: SaveChecker, pictures: list[np.ndarray]) -> None:
    folder = save_checker(pictures, 0.0, 2.0)
    identity = create_detector(f"safety-checker:{folder}", threshold=0.6).identity
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (identity.name, identity.threshold) == ("safety-checker", 0.6)
    assert identity.file_hash == digest
    assert identity.labels == ("flagged",)


def test_what_is_no_checker_is_refused(
    save_checker: SaveChecker, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_checker(pictures, 0.0, 2.0)
    weights = load_file(folder / "model.safetensors")
    del weights["concept_embeds"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SafegenError, match="it lacks 1 weights of a checker"):
        create_detector(f"safety-checker:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SafegenError, match="has no safetensors weights"):
        create_detector(f"safety-checker:{folder}")
    with pytest.raises(SafegenError, match="no such model folder"):
        create_detector(f"safety-checker:{tmp_path}/missing")
    with pytest.raises(SafegenError, match="follows a colon"):
        create_detector("safety-checker")
