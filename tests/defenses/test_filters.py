"""Defenses that filter the output or exchange the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import safegen
from safegen.defenses import FilterSetAsideWarning, create_defense, defended
from safegen.defenses.safety_filter import put_checker
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.models.clip_features import ImageNormalisation
from safegen.models.safety_checker import checker_from_clip, image_processor
from safegen.patches.patch import Patch
from safegen.profiles import Profile

Pictures = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def clip() -> Any:
    """A tiny CLIP model with random weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    shared = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    vision = {**shared, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config={**shared, "vocab_size": 20, "eos_token_id": 19},
                        vision_config=vision, projection_dim=8)  # fmt: skip
    return CLIPModel(config).eval()


def test_exactly_the_flagged_pictures_are_black(
    clip: Any, tiny_pipeline: Any, pictures: Pictures
) -> None:
    from PIL import Image

    plain = pictures(tiny_pipeline)
    processor = image_processor(clip.config, ImageNormalisation((0.5,) * 3, (0.5,) * 3))
    pixels = processor([Image.fromarray(image) for image in plain], return_tensors="pt")
    with torch.no_grad():
        pooled = clip.vision_model(pixel_values=pixels.pixel_values).pooler_output
        features = torch.nn.functional.normalize(clip.visual_projection(pooled))
    # A concept that is the second picture itself, and a threshold between the two.
    nearness = float(features[0] @ features[1])
    assert nearness < 0.99
    checker = checker_from_clip(clip, features[1:], torch.tensor([(1 + nearness) / 2]))
    undo = put_checker(tiny_pipeline, checker, processor)
    filtered = pictures(tiny_pipeline)
    undo()
    assert np.array_equal(filtered[0], plain[0])
    assert not filtered[1].any()
    assert tiny_pipeline.safety_checker is None


def test_the_models_own_checker_acts_as_a_defense_only(
    build_checker: Callable[..., Any], tiny_pipeline: Any, pictures: Pictures, knives: Any
) -> None:
    plain = pictures(tiny_pipeline)
    checker, processor = build_checker(threshold=-1.5)
    tiny_pipeline.safety_checker = checker
    tiny_pipeline.feature_extractor = processor
    assert not pictures(tiny_pipeline).any()
    none = create_defense("none")
    with pytest.warns(FilterSetAsideWarning, match=r"none\+safety-filter"):
        none.apply(tiny_pipeline)
    assert np.array_equal(pictures(tiny_pipeline), plain)
    none.remove(tiny_pipeline)
    assert tiny_pipeline.safety_checker is checker
    with warnings.catch_warnings():
        warnings.simplefilter("error", FilterSetAsideWarning)
        with defended(tiny_pipeline, "sld-max+safety-filter", knives):
            assert not pictures(tiny_pipeline).any()
    assert tiny_pipeline.safety_checker is checker


def test_a_model_without_a_checker_needs_one_named(tiny_pipeline: Any, files: Path) -> None:
    with pytest.raises(SafegenError, match="came without a safety checker"):
        create_defense("safety-filter").apply(tiny_pipeline)
    with pytest.raises(SafegenError, match="missing: no such model folder"):
        create_defense(f"safety-filter:{files}/missing").apply(tiny_pipeline)
    with pytest.raises(SafegenError, match="unet: cannot be loaded as a safety checker"):
        create_defense(f"safety-filter:{files}/unet").apply(tiny_pipeline)
    create_defense("none").apply(tiny_pipeline)  # nothing is left of the failed ones


def test_a_checker_is_found_in_a_pipelines_folder(
    tiny_pipeline: Any, files: Path, tmp_path: Path, pictures: Pictures
) -> None:
    for part, pattern in (("safety_checker", "[!p]*"), ("feature_extractor", "p*")):
        (tmp_path / part).mkdir()
        for file in (files / "checker").glob(pattern):
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    defense = create_defense(f"safety-filter:{tmp_path}")
    with defended(tiny_pipeline, defense):
        assert not pictures(tiny_pipeline).any()
    before = defense.identity.settings
    config = tmp_path / "feature_extractor" / "preprocessor_config.json"
    config.write_text(config.read_text() + " ")
    assert create_defense(f"safety-filter:{tmp_path}").identity.settings != before


def test_the_models_own_checker_is_handed_back_as_it_was(
    build_checker: Callable[..., Any], tiny_pipeline: Any
) -> None:
    checker, processor = build_checker(threshold=-1.5)
    tiny_pipeline.safety_checker, tiny_pipeline.feature_extractor = checker, processor
    tiny_pipeline.unet.half()
    with defended(tiny_pipeline, "safety-filter"):
        assert tiny_pipeline.safety_checker is checker
    assert next(checker.parameters()).dtype == torch.float32


def test_a_shift_moves_the_thresholds_of_a_copy(
    build_checker: Callable[..., Any], tiny_pipeline: Any, pictures: Pictures
) -> None:
    plain = pictures(tiny_pipeline)
    checker, processor = build_checker(threshold=-1.5)
    tiny_pipeline.safety_checker, tiny_pipeline.feature_extractor = checker, processor
    with defended(tiny_pipeline, "safety-filter,shift=3"):
        assert np.array_equal(pictures(tiny_pipeline), plain)
    with defended(tiny_pipeline, "safety-filter,shift=0.1"):
        assert not pictures(tiny_pipeline).any()
    assert float(checker.concept_embeds_weights[0]) == -1.5
    assert create_defense("safety-filter,shift=3").identity.settings["shift"] == 3


def test_only_a_checker_that_is_made_for_words_is_recorded_with_them(knives: Any) -> None:
    def recorded(*arguments: Any) -> dict[str, Any]:
        return create_defense("safety-filter", *arguments).identity.settings

    own = {"source": "the model's own"}
    assert recorded() == recorded(knives) == recorded(knives, Profile("real", "owner/name")) == own
    assert recorded(knives, LAB) == {"source": "lab", "words": list(knives.words)}
    assert recorded(None, LAB) == {"source": "lab", "words": list(LAB_WEAPONS.words)}


def test_another_checkpoint_is_the_one_that_generates(
    tiny_pipeline: Any, build_pipeline: Callable[..., Any], files: Path, pictures: Pictures
) -> None:
    expected = pictures(build_pipeline(seed=6))
    with defended(tiny_pipeline, f"filtered:{files}/model"):
        assert np.array_equal(pictures(tiny_pipeline), expected)
    other = build_pipeline()
    other.unet = build_pipeline(seed=5).unet
    with defended(tiny_pipeline, f"filtered:{files}/unet"):
        assert np.array_equal(pictures(tiny_pipeline), pictures(other))


def test_a_checkpoint_that_does_not_fit_is_refused(
    tiny_pipeline: Any, files: Path, tmp_path: Path, safegen_patch: Patch
) -> None:
    from diffusers import UNet2DConditionModel

    config = {**tiny_pipeline.unet.config, "cross_attention_dim": 8}
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "narrow")
    for spec, message in (
        (f"filtered:{tmp_path}/narrow", "has cross_attention_dim 8, the pipeline's UNet 16"),
        (f"filtered:{files}/checker", "cannot be loaded as a UNet"),
        (f"filtered:{tmp_path}", "has no safetensors weights"),
        (f"filtered:{tmp_path}/missing", "no such model folder"),
        ("filtered", "has to be told which checkpoint"),
    ):
        with pytest.raises(SafegenError, match=message):
            create_defense(spec).apply(tiny_pipeline)
    safegen.apply(tiny_pipeline, safegen_patch)
    with pytest.raises(SafegenError, match="would be lost"):
        create_defense(f"filtered:{files}/unet").apply(tiny_pipeline)
