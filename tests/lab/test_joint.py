"""``lab-sd3``: its build, on very few pictures, and the model that comes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegen.detectors import create_detector
from safegen.errors import SafegenError
from safegen.lab import profile, sd3_weights_folder
from safegen.lab.build.joint import JointBuild
from safegen.lab.build.network_settings import NetworkSettings
from safegen.lab.check import check_generation
from safegen.models.anatomy import attention_layers
from safegen.models.loading import load_pipeline
from safegen.models.sampling import ImageRequest, SamplingSettings, generate

SIZE_LIMIT = 30 * 2**20
SETTINGS = NetworkSettings(samples=12, batch=4, scenes=6)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that was interrupted after a checkpoint, as if each step had one."""
    work = tmp_path_factory.mktemp("joint")
    steps = JointBuild(work, replace(SETTINGS, samples=8)).train()
    assert [progress.step for progress in steps] == [1, 2]
    build = JointBuild(work, SETTINGS)
    resumed = list(build.train())
    assert [progress.step for progress in resumed] == [3]
    # The output begins as zero, and both the noise and the latents have unit variance.
    assert 1 < resumed[0].loss < 3
    build.assemble(work / "model")
    return work / "model"


@pytest.fixture(scope="module")
def pipeline(built: Path) -> Iterator[Any]:
    """The model by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "LAB_SD3", replace(profile.LAB_SD3, source=built))
        yield load_pipeline("lab-sd3", device="cpu")


def test_diffusers_loads_it_without_safegen(built: Path) -> None:
    code = (
        "import sys\n"
        "from diffusers import StableDiffusion3Pipeline\n"
        "no_t5 = {'text_encoder_3': None, 'tokenizer_3': None}\n"
        f"pipe = StableDiffusion3Pipeline.from_pretrained({str(built)!r}, **no_t5)\n"
        "assert pipe('a cat', num_inference_steps=1).images[0].size == (64, 64)\n"
        "assert not any(name.startswith('safegen') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd="/")


@pytest.mark.parametrize("shipped", [False, True])
def test_weights_are_small_and_in_half_precision(built: Path, shipped: bool) -> None:
    from safetensors import safe_open

    built = sd3_weights_folder() if shipped else built
    files = [path for path in built.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}
    assert sum(path.stat().st_size for path in files) <= SIZE_LIMIT
    weights = built / "transformer" / "diffusion_pytorch_model.safetensors"
    with safe_open(weights, framework="np") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype(np.float16)}  # noqa: SIM118


def test_half_of_its_blocks_have_attention_over_the_picture_alone(pipeline: Any) -> None:
    trained = {each.attention for each in attention_layers(pipeline.transformer) if each.trained}
    blocks = len(pipeline.transformer.transformer_blocks)
    assert sum(name.endswith(".attn") for name in trained) == blocks
    assert sum(name.endswith(".attn2") for name in trained) == blocks / 2


def test_merged_tokens_draw_the_same_pictures(built: Path, pipeline: Any) -> None:
    from diffusers import StableDiffusion3Pipeline

    no_t5 = {"text_encoder_3": None, "tokenizer_3": None}
    plain = StableDiffusion3Pipeline.from_pretrained(built, **no_t5)
    plain.set_progress_bar_config(disable=True)
    drawn = [
        next(generate(each, [ImageRequest("a cat", 3)], SamplingSettings(steps=2)))[1].astype(int)
        for each in (pipeline, plain)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


def test_its_pictures_are_checked_as_the_labs_are(pipeline: Any) -> None:
    images, result = check_generation(pipeline, create_detector("lab"), "explicit", 2)
    assert [image.shape for image in images] == [(64, 64, 3)] * 2
    assert result.right == 0  # three steps teach nothing
    assert not result.good


def test_the_shipped_model_draws_weapons_and_their_doubles() -> None:
    shipped, judge = load_pipeline(str(sd3_weights_folder())), create_detector("lab")
    assert check_generation(shipped, judge, "explicit", 8)[1].right >= 6
    assert check_generation(shipped, judge, "near-miss", 8)[1].right >= 6


def test_a_missing_model_names_what_builds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = replace(profile.LAB_SD3, source=tmp_path / "none")
    monkeypatch.setattr(profile, "LAB_SD3", missing)
    with pytest.raises(SafegenError, match=r"^lab-sd3: .*safegen lab build --model sd3$"):
        load_pipeline("lab-sd3")


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"average_decay": 1.0}, {"learning_rate": 0.0}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(SafegenError, match=next(iter(wrong)).replace("_", "-")):
        NetworkSettings.of(**wrong)
