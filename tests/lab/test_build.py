from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safegen.errors import SafegenError
from safegen.lab.build.stages import STAGES, BuildSettings, LabBuild
from safegen.lab.build.training import Schedule

BRIEF = Schedule(steps=2, learning_rate=1e-3, batch=2, warmup=1, checkpoint_every=2)
TRAINED = (
    "clip", "autoencoder", "decoder", "classifier", "detector", "outlines", "places", "safe_unet",
    "unet",
)  # fmt: skip
SIZES = dict.fromkeys(("scenes", "unet_scenes", "safe_scenes", "shapes"), 20)
SMALL = BuildSettings(**SIZES, **dict.fromkeys(TRAINED, BRIEF))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, each far too short, but real."""
    work = tmp_path_factory.mktemp("build")
    build = LabBuild(work / "stages", SMALL)
    for stage in STAGES:
        assert [progress.step for progress in build.run(stage)] == [1, 2]
    build.assemble(work / "weights")
    return work


def test_the_result_is_a_pipeline_in_half_precision(built: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    pipeline = StableDiffusionPipeline.from_pretrained(built / "weights")
    assert pipeline("a cat", num_inference_steps=2).images[0].size == (64, 64)
    weights = built / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    with safe_open(weights, framework="pt") as file:
        names = file.keys()
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    networks = sorted((built / "weights").glob("*.onnx"))
    assert [each.name for each in networks] == [
        "classifier.onnx", "detector.onnx", "outlines.onnx", "places.onnx", "second_detector.onnx",
    ]  # fmt: skip
    assert len({each.read_bytes() for each in networks}) == len(networks)


def test_an_interrupted_stage_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = replace(SMALL, autoencoder=replace(BRIEF, checkpoint_every=1))
    whole, broken = (LabBuild(tmp_path / name, settings) for name in ("whole", "broken"))
    for _ in whole.run("autoencoder"):
        pass
    steps = broken.run("autoencoder")
    next(steps)
    steps.close()
    assert [progress.step for progress in broken.run("autoencoder")] == [2]
    files = [
        build.folder / "vae" / "diffusion_pytorch_model.safetensors" for build in (whole, broken)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_unknown_stage() -> None:
    with pytest.raises(SafegenError, match="unknown stage"):
        list(LabBuild(Path("nowhere")).run("magic"))


def test_schedule_warms_up_stays_and_decays() -> None:
    schedule = replace(BRIEF, steps=100, warmup=10, decay=0.2, floor=0.0)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:80]) == {1e-3}
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert rates[-1] < 1e-4
