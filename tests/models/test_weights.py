"""Weights in folders, and in the cache of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from safegen.errors import SafegenError
from safegen.models.weights import content_hash, hub_revision, model_folder, weights_hash

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that has the model ``someone/something``; its folder there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--something"
    folder = repository / "snapshots" / COMMIT
    (folder / "unet").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "unet/config.json"):
        (folder / name).write_text(json.dumps({"name": name}))
    return folder


def test_what_was_fetched_before_is_found_without_the_hub(cached: Path) -> None:
    assert model_folder("someone/something", local_files_only=True) == cached
    for file in ("config.json", "unet/config.json"):
        assert hub_revision("someone/something", file, local_files_only=True) == COMMIT


@pytest.mark.parametrize("name", ["someone/else", "no such name"])
@pytest.mark.usefixtures("cached")
def test_what_cannot_be_had_is_one_line(name: str) -> None:
    with pytest.raises(SafegenError, match=rf"{name}: is no folder here and cannot be had"):
        model_folder(name, local_files_only=True)
    with pytest.raises(SafegenError, match="cannot be had"):
        hub_revision(name, "config.json", local_files_only=True)


def test_a_path_that_is_no_folder_is_never_looked_up(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SafegenError, match="is a file"):
        model_folder(str(tmp_path / "file"))
    with pytest.raises(SafegenError, match="no such model folder"):
        model_folder(str(tmp_path / "missing"))


def test_hashes_tell_content_and_not_the_place(tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tiny_folder / "unet").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert content_hash(copy) == content_hash(tiny_folder / "unet")
    assert weights_hash(copy) == weights_hash(tiny_folder / "unet")
    (copy / "config.json").write_text("{}")
    assert content_hash(copy) != content_hash(tiny_folder / "unet")
    assert weights_hash(copy) == weights_hash(tiny_folder / "unet")
    first = copy / "diffusion_pytorch_model.safetensors"
    (copy / "second.safetensors").write_bytes(first.read_bytes())
    assert weights_hash(copy) != weights_hash(tiny_folder / "unet")
