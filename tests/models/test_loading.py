from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    "file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not valid JSON"), (99_999 * "[", "is not"), ("[1]", "not list"), ("null", "not No")],
)
def test_configurations_that_are_no_objects(
    folder: Path, file: str, content: str, message: str
) -> None:
    (folder / file).write_text(content)
    with pytest.raises(SafegenError, match=rf"{file}: .*{message}.*; download it again"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"unet": "UNet2DConditionModel"}, {"unet": [None, None]}, {"unet": []}, {"vae": 3},
        {"vae": [None, None]}, {"vae": ["diffusers"]}, {"vae": ["diffusers", "Nothing"]},
        {"scheduler": ["torch", 5]}, {"_class_name": 5}, {"_class_name": "Nothing"},
    ],
)  # fmt: skip
def test_index_with_entries_of_another_kind(folder: Path, entry: dict[str, Any]) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entry))
    with pytest.raises(SafegenError, match=f"^{folder}: [^\n]*$"):
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


def test_a_variant_is_loaded_by_its_name(tmp_path: Path, tiny_pipeline: Any) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(SafegenError, match="has no weights without a variant; give --variant fp16"):
        load_pipeline(tmp_path / "half")
    with pytest.raises(SafegenError, match="no weights of the variant bf16; give --variant fp16"):
        load_pipeline(tmp_path / "half", variant="bf16")
    loaded: Any = load_pipeline(tmp_path / "half", variant="fp16", device="cpu")
    expected = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in loaded.unet.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_have_the_precision_asked_for(tiny_folder: Path, dtype: torch.dtype) -> None:
    loaded: Any = load_pipeline(tiny_folder, dtype=dtype, device="cpu")
    for part in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert {parameter.dtype for parameter in part.parameters()} == {dtype}


def test_sharded_variants_are_told_from_their_names() -> None:
    from safegen.models.loading import _variant_of

    assert _variant_of("diffusion_pytorch_model.safetensors") is None
    assert _variant_of("diffusion_pytorch_model-00001-of-00002.safetensors") is None
    for name in ("model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors"):
        assert _variant_of(name) == "fp16"


def test_pickled_parts_only_with_the_flag(folder: Path, tiny_pipeline: Any) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save(tiny_pipeline.unet.state_dict(), weights.with_suffix(".bin"))
    with pytest.raises(SafegenError, match=r"is a pickle, .* --allow-pickle"):
        load_pipeline(folder)
    loaded: Any = load_pipeline(folder, allow_pickle=True, device="cpu")
    expected = tiny_pipeline.unet.state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in loaded.unet.state_dict().items())


def test_a_hub_id_that_is_not_here_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from huggingface_hub import constants

    def refuse(*_: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(SafegenError, match="someone/something: cannot be loaded"):
        load_pipeline("someone/something", local_files_only=True)
