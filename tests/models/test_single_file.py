"""Whole models from one file in the original layout, without any hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from safegen.errors import SafegenError
from safegen.models.loading import load_pipeline
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.models.shipped import FOLDER, clip_tokenizer, shipped_tokenizers
from safegen.models.single_file import recognise
from safegen.patches.original_layout import UNetNames, save_single_file

UNET = "model.diffusion_model."


class Checkpoint(NamedTuple):
    """A pipeline, its single file, and its diffusers folder."""

    pipeline: Any
    file: Path
    folder: Path


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def checkpoint(
    request: pytest.FixtureRequest,
    build_family: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    pipeline = build_family(request.param)
    place = tmp_path_factory.mktemp(request.param)
    save_single_file(pipeline, place / "model.safetensors", {})
    pipeline.save_pretrained(place / "folder")
    return Checkpoint(pipeline, place / "model.safetensors", place / "folder")


def _same_weights(one: Any, other: Any) -> bool:
    parts = [name for name in one.components if hasattr(getattr(one, name), "state_dict")]
    assert {"unet", "vae", "text_encoder"} <= set(parts)
    for part in parts:
        ours, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert ours.keys() == theirs.keys()
        if not all(torch.equal(value, theirs[name]) for name, value in ours.items()):
            return False
    return True


def _settings(scheduler: Any) -> dict[str, Any]:
    return {name: value for name, value in scheduler.config.items() if name[0] != "_"}


def test_a_file_is_the_same_model_as_its_folder(checkpoint: Checkpoint) -> None:
    loaded: Any = load_pipeline(checkpoint.file, config=str(checkpoint.folder), device="cpu")
    assert type(loaded) is type(checkpoint.pipeline)
    assert _same_weights(loaded, checkpoint.pipeline)
    assert _settings(loaded.scheduler) == _settings(checkpoint.pipeline.scheduler)
    assert loaded.name_or_path == str(checkpoint.file)
    settings = SamplingSettings(steps=2)
    request = [ImageRequest("a cat", 0)]
    ours, theirs = (
        next(generate(each, request, settings))[1] for each in (loaded, checkpoint.pipeline)
    )
    assert np.array_equal(ours, theirs)


def test_half_precision_on_request(checkpoint: Checkpoint) -> None:
    loaded: Any = load_pipeline(
        checkpoint.file, dtype=torch.bfloat16, config=str(checkpoint.folder), device="cpu"
    )
    assert {p.dtype for p in loaded.unet.parameters()} == {torch.bfloat16}


def test_a_pickle_only_with_the_flag(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pickle = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(checkpoint.file), "global_step": 7}, pickle)
    with pytest.raises(SafegenError, match=r"model\.ckpt: is a pickle, .* --allow-pickle"):
        load_pipeline(pickle, config=str(checkpoint.folder))
    loaded = load_pipeline(pickle, config=str(checkpoint.folder), allow_pickle=True, device="cpu")
    assert _same_weights(loaded, checkpoint.pipeline)


class _Harmful:
    """Runs code when it is unpickled without restrictions."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": _Harmful(tmp_path / "ran")}, tmp_path / "bad.ckpt")
    with pytest.raises(SafegenError, match=r"bad\.ckpt: holds more than weights"):
        load_pipeline(tmp_path / "bad.ckpt", allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), {"state_dict": [torch.ones(1)]}, 3])
def test_a_pickle_without_weights_by_name(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.CKPT")
    with pytest.raises(SafegenError, match=r"odd\.CKPT: holds a \w+ instead of weights by name"):
        load_pipeline(tmp_path / "odd.CKPT", allow_pickle=True)


@pytest.mark.parametrize("content", ["[1]", '"text"', "null", "{"])
def test_a_configuration_that_is_no_object(
    checkpoint: Checkpoint, tmp_path: Path, content: str
) -> None:
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(SafegenError, match=r"model_index\.json: .* JSON.*; give another --config"):
        load_pipeline(checkpoint.file, config=str(tmp_path))


def test_missing_weights_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tensors = load_file(checkpoint.file)
    del tensors[f"{UNET}out.2.weight"]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(SafegenError, match="lacks weights that the configuration folder has"):
        load_pipeline(tmp_path / "part.safetensors", config=str(checkpoint.folder))


def test_a_configuration_that_does_not_fit(checkpoint: Checkpoint) -> None:
    with pytest.raises(SafegenError, match="cannot be loaded with the configuration sd2"):
        load_pipeline(checkpoint.file, config="sd2")
    with pytest.raises(SafegenError, match=r"no model_index\.json; give .* sd1, sd2"):
        load_pipeline(checkpoint.file, config="nowhere")


def test_truncated_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(checkpoint.file.read_bytes()[:-10])
    with pytest.raises(SafegenError, match=r"short\.safetensors: truncated"):
        load_pipeline(short)


def test_options_that_have_no_effect(checkpoint: Checkpoint) -> None:
    with pytest.raises(SafegenError, match="a single file has no variants"):
        load_pipeline(checkpoint.file, variant="fp16")
    with pytest.raises(SafegenError, match="--config is for a single file"):
        load_pipeline(checkpoint.folder, config="sd1")


@pytest.mark.parametrize("markers", [("v_pred",), ("v_pred", "ztsnr")])
def test_sdxls_markers_are_followed(
    build_family: Callable[..., Any], tmp_path: Path, markers: tuple[str, ...]
) -> None:
    pipeline = build_family("sdxl")
    pipeline.save_pretrained(tmp_path / "folder")
    save_single_file(pipeline, tmp_path / "plain.safetensors", {})
    tensors = load_file(tmp_path / "plain.safetensors")
    save_file(tensors | {name: torch.empty(0) for name in markers}, tmp_path / "marked.safetensors")
    loaded: Any = load_pipeline(
        tmp_path / "marked.safetensors", config=str(tmp_path / "folder"), device="cpu"
    )
    config = loaded.scheduler.config
    assert config.prediction_type == "v_prediction"
    assert config.rescale_betas_zero_snr == ("ztsnr" in markers)
    assert config.timestep_spacing == ("trailing" if "ztsnr" in markers else "leading")


def _shapes(context: int, channels: int = 4, text: str = "cond_stage_model.") -> Any:
    return {
        f"{UNET}input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, context),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
        f"{text}model.weight": (1,),
    }


@pytest.mark.parametrize(
    ("name", "text"), [("sd1", "cond_stage_model."), ("sdxl", "conditioner.embedders.0.")]
)
def test_files_are_recognised_by_their_weights(name: str, text: str) -> None:
    from diffusers import UNet2DConditionModel

    config = json.loads((FOLDER / name / "unet" / "config.json").read_text())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    names = UNetNames(unet)
    shapes = {names.original(key): tuple(v.shape) for key, v in unet.state_dict().items()}
    rest = {f"first_stage_model.{name}": (1,), f"{text}{name}": (1,)}
    assert recognise(shapes | rest, Path("x")) == name


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (_shapes(1024), "does not say what it predicts; give --config sd2 .* sd2-base"),
        (_shapes(1280), "is no Stable Diffusion 1.x, 2.x or XL base model"),
        (_shapes(768, channels=9), "takes 9 channels instead of a latent's 4"),
        (_shapes(768, text="other."), "has no text encoder"),
        ({"lora_unet_mid_block.lora_down.weight": (4, 4)}, "holds no UNet in the original layout"),
    ],
)
def test_files_that_are_not_told_by_their_weights(shapes: Any, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        recognise(shapes, Path("x.safetensors"))


def test_clips_tokenizer_is_the_published_one() -> None:
    tokenizer = clip_tokenizer("<|endoftext|>")
    assert len(tokenizer) == 49408
    ids = tokenizer("a photo of a cat").input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]  # as OpenAI's own gives them
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a photo of a cat"
    assert tokenizer("Ein Kätzchen: 7 × ☃!").input_ids[0] == 49406


@pytest.mark.parametrize(
    ("name", "padding"), [("sd1", [49407]), ("sd2", [0]), ("sd2-base", [0]), ("sdxl", [49407, 0])]
)
def test_tokenizers_pad_as_published(name: str, padding: list[int]) -> None:
    tokenizers = shipped_tokenizers(name)
    found = [tokenizers[each] for each in sorted(tokenizers)]
    assert [tokenizer("", padding="max_length").input_ids[-1] for tokenizer in found] == padding
    assert {len(tokenizer("", padding="max_length").input_ids) for tokenizer in found} == {77}
