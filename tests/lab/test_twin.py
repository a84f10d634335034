"""The lab's twin of velocities: its build, on very few pictures, and the model that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.lab.build.network_settings import NetworkSettings
from safegen.lab.build.twin import TwinBuild
from safegen.lab.triplets import LabTriplets
from safegen.models.loading import load_pipeline
from safegen.models.prediction import prediction_of, signal_and_noise
from safegen.models.sampling import ImageRequest, SamplingSettings, generate

SETTINGS = NetworkSettings(samples=12, batch=4, scenes=6)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that was interrupted after a checkpoint, as if each step had one."""
    work = tmp_path_factory.mktemp("twin")
    assert len(list(TwinBuild(work, replace(SETTINGS, samples=8)).train())) == 2
    build = TwinBuild(work, SETTINGS)
    assert [progress.step for progress in build.train()] == [3]
    build.assemble(work / "model")
    return work / "model"


def test_it_predicts_velocities_down_to_no_signal(built: Path) -> None:
    pipeline = load_pipeline(str(built), device="cpu")
    assert prediction_of(pipeline.scheduler) == "v_prediction"
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    signal, noise = signal_and_noise(pipeline.scheduler, torch.tensor([999]))
    assert float(signal) == pytest.approx(0, abs=1e-3)
    assert float(noise) == pytest.approx(1, abs=1e-3)
    lab = load_pipeline("lab", device="cpu").unet.state_dict()
    twin = pipeline.unet.state_dict()
    assert any(not torch.equal(lab[name].half(), twin[name].half()) for name in lab)


def test_it_draws_and_is_edited_as_any_model(built: Path) -> None:
    pipeline = load_pipeline(str(built), device="cpu")
    settings = SamplingSettings(steps=2)
    assert next(generate(pipeline, [ImageRequest("a cat", 3)], settings))[1].shape == (64, 64, 3)
    edit = Edit(
        pipeline, _latents(pipeline), EditSettings.of(steps=2, unsafe_batch=1, warmup_steps=1)
    )
    losses = [record.loss for record in edit.run()]
    assert len(losses) == 2
    assert edit.patch().differences


def _latents(pipeline: Any) -> TripletLatents:
    return encode_triplets(pipeline, LabTriplets(2, 0))
