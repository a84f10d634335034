"""What workers draw and see."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safegen.defenses import create_defense, defended
from safegen.errors import SafegenError
from safegen.evaluation.executors import result_of
from safegen.evaluation.jobs import (
    Draw,
    Drawn,
    Failure,
    Inspect,
    Inspection,
    Look,
    Picture,
    Seen,
    WorkerSettings,
)
from safegen.evaluation.plan import defense_settings
from safegen.evaluation.worker import Worker, decode, encode_png, model_hashes
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.observers import ObserverIdentity
from safegen.results.records import Item
from safegen.results.store import CellKey

TEXTS = ("a knife in the snow", "a cat and a house")


def draw(worker: Worker, defense: str, guidance: float = 5.0) -> Draw:
    """A job of two pictures."""
    inspection = worker.do(Inspect((), ()))
    assert isinstance(inspection, Inspection)
    expected = defense_settings(create_defense(defense, worker.settings.concept).identity)
    items = {i: Item(str(i), 0, text, i, guidance) for i, text in enumerate(TEXTS)}
    place = CellKey(defense, "words")
    return Draw(place, defense, expected, inspection.model, inspection.device, items)


def pictures(worker: Worker, job: Draw) -> list[np.ndarray]:
    drawn = worker.do(job)
    assert isinstance(drawn, Drawn)
    return [decode(png) for png, _ in drawn.pictures]


def test_pictures_are_those_of_the_defended_pipeline(
    tiny_worker: WorkerSettings, tiny_pipeline: Any
) -> None:
    worker = Worker(replace(tiny_worker, sampling=SamplingSettings(steps=18)))
    requests = [ImageRequest(text, i) for i, text in enumerate(TEXTS)]
    for guidance in (5.0, 2.0):
        how = SamplingSettings(steps=18, guidance_scale=guidance)
        for defense in ("sld-max", "none", "negative-prompt", "sld-max"):
            with defended(tiny_pipeline, defense, tiny_worker.concept):
                expected = [image for _, image in generate(tiny_pipeline, requests, how)]
            found = pictures(worker, draw(worker, defense, guidance))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_a_filter_blacks_out_is_recorded(
    tiny_pipeline: Any, tiny_worker: WorkerSettings, tmp_path: Path
) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    from safegen.models.clip_features import ImageNormalisation
    from safegen.models.safety_checker import image_processor

    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-1.5)  # everything is closer than that
    processor = image_processor(checker.config, ImageNormalisation((0.5,) * 3, (0.5,) * 3))
    tiny_pipeline.register_modules(safety_checker=checker.eval(), feature_extractor=processor)
    tiny_pipeline.save_pretrained(tmp_path / "model")
    worker = Worker(replace(tiny_worker, model=str(tmp_path / "model")))
    inspection = worker.do(Inspect(("none", "safety-filter"), ()))
    assert isinstance(inspection, Inspection)
    assert "safety_checker" in inspection.model
    assert [note for note in inspection.notes if "none+safety-filter" in note]
    for defense, blocked in (("none", False), ("safety-filter", True)):
        drawn = worker.do(draw(worker, defense))
        assert isinstance(drawn, Drawn)
        assert [flag for _, flag in drawn.pictures] == [blocked] * 2
        assert [decode(png).any() for png, _ in drawn.pictures] == [not blocked] * 2


def test_warnings_of_a_defense_are_notes(tiny_worker: WorkerSettings) -> None:
    worker = Worker(tiny_worker)
    drawn = worker.do(draw(worker, "negative-prompt", guidance=1.0))
    assert isinstance(drawn, Drawn)
    (note,) = drawn.notes
    assert "does nothing without classifier-free guidance" in note


def test_another_model_or_defense_than_the_drivers_is_refused(
    tiny_worker: WorkerSettings, build_pipeline: Callable[..., Any]
) -> None:
    worker = Worker(tiny_worker)
    job = draw(worker, "sld-max")
    for changed, message in (
        (replace(job, model={"unet": "another"}), "the model .* is not the same for all workers"),
        (replace(job, expected={"defense": "sld-weak"}), "the defense sld-max is not the same"),
        (replace(job, device="abacus"), "the device is not the same"),
    ):
        failure = worker.attempt(changed)
        assert isinstance(failure, Failure)
        assert failure.mendable
        with pytest.raises(SafegenError, match=message):
            worker.do(changed)
    assert len(pictures(worker, job)) == 2
    other = build_pipeline()
    assert model_hashes(other) == job.model
    other.text_encoder.text_projection = None
    other.vae.decoder.conv_out.bias.data += 1
    assert model_hashes(other)["unet"] == job.model["unet"]
    assert model_hashes(other)["vae"] != job.model["vae"]


def test_an_error_that_is_nobodys_fault_comes_with_its_traceback(
    tiny_worker: WorkerSettings,
) -> None:
    worker = Worker(tiny_worker)
    broken = replace(draw(worker, "none"), items={})
    failure = worker.attempt(broken)
    assert isinstance(failure, Failure)
    assert not failure.mendable
    assert "IndexError" in failure.message
    with pytest.raises(RuntimeError, match="IndexError"):  # exit code 1, and not a user's 2
        result_of(failure)


def test_pictures_of_any_size_are_observed_in_order(tiny_worker: WorkerSettings) -> None:
    sizes = [(8, 8), (8, 8), (4, 6), (8, 8)]
    images = [np.full((*size, 3), 10 * i, np.uint8) for i, size in enumerate(sizes)]
    given = {7 + i: Picture(encode_png(image), f"text {i}") for i, image in enumerate(images)}
    identity = ObserverIdentity("brightness", {"version": "1"})
    seen = Worker(tiny_worker).do(Look("brightness", identity, given))
    assert isinstance(seen, Seen)
    assert [each.values for each in seen.observations] == [
        {"mean": 10.0 * i, "text": f"text {i}"} for i in range(4)
    ]
    with pytest.raises(SafegenError, match="the observer brightness is not the same"):
        Worker(tiny_worker).do(Look("brightness", ObserverIdentity("brightness"), given))


def test_image_files_are_read_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert np.array_equal(decode(encode_png(image)), image)
    assert encode_png(image) == encode_png(image.copy())
    grey = io.BytesIO()
    Image.new("L", (3, 2), 7).save(grey, "BMP")
    assert np.array_equal(decode(grey.getvalue()), np.full((2, 3, 3), 7))
    with pytest.raises(SafegenError, match="cannot be read"):
        decode(encode_png(image)[:40])
