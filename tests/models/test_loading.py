from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from safegen.errors import SafegenError
from safegen.models.loading import load_pipeline


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_loads_a_folder_in_float32(tiny_folder: Path) -> None:
    pipeline = load_pipeline(tiny_folder)
    assert next(pipeline.unet.parameters()).dtype == torch.float32


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match="no such model folder"):
        load_pipeline(tmp_path / "nowhere")


def test_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match=r"no model_index\.json"):
        load_pipeline(tmp_path)


def test_index_that_is_no_json(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(SafegenError, match=r"model_index\.json: not valid JSON"):
        load_pipeline(folder)


def test_folder_without_unet(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    with pytest.raises(SafegenError, match="has no UNet"):
        load_pipeline(folder)


def test_index_without_unet(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(SafegenError, match="has no UNet"):
        load_pipeline(folder)


def test_truncated_weights_are_named(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(SafegenError, match=r"diffusion_pytorch_model\.safetensors: truncated"):
        load_pipeline(folder)


def test_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(SafegenError, match="is a pickle"):
        load_pipeline(folder)
    checkpoint = tmp_path / "model.ckpt"
    torch.save({"x": torch.ones(1)}, checkpoint)
    with pytest.raises(SafegenError, match="is a pickle"):
        load_pipeline(checkpoint)


def test_part_that_is_missing(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(SafegenError, match="cannot be loaded"):
        load_pipeline(folder)
