from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.errors import SafegenError


def test_encodes_with_the_models_own_autoencoder(tiny_pipeline: Any, drawn_triplets: Any) -> None:
    source = drawn_triplets(count=5)
    latents = encode_triplets(tiny_pipeline, source, batch=2)
    assert latents.unsafe.shape == latents.censored.shape == (5, 4, 8, 8)
    assert latents.captions == ("a cat", "the house and the snow", "a cat",
                                "the house and the snow", "a cat")  # fmt: skip
    first = next(iter(source.pairs())).unsafe
    pixels = torch.from_numpy(first).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        mean = tiny_pipeline.vae.encode(pixels).latent_dist.mean
    expected = mean * tiny_pipeline.vae.config.scaling_factor
    torch.testing.assert_close(latents.unsafe[:1], expected, rtol=1e-4, atol=1e-5)


def test_other_sizes_are_fitted(tiny_pipeline: Any, drawn_triplets: Any) -> None:
    assert encode_triplets(tiny_pipeline, drawn_triplets(2, size=40)).unsafe.shape[2:] == (8, 8)


def test_survive_the_disk(tiny_latents: TripletLatents, tmp_path: Path) -> None:
    tiny_latents.save(tmp_path / "t.safetensors")
    loaded = TripletLatents.load(tmp_path / "t.safetensors")
    assert loaded.digest() == tiny_latents.digest()
    assert loaded.captions == tiny_latents.captions
    assert loaded.source == tiny_latents.source


def test_without_captions_there_are_none(tiny_pipeline: Any, drawn_triplets: Any) -> None:
    assert encode_triplets(tiny_pipeline, drawn_triplets(2, captions=False)).captions == ()


def test_nothing_to_learn_from_is_an_error(tiny_latents: TripletLatents) -> None:
    t = tiny_latents
    with pytest.raises(SafegenError, match="no unsafe image"):
        TripletLatents(t.unsafe[:0], t.censored[:0], t.benign, t.captions, t.vae)
    with pytest.raises(SafegenError, match="no benign image"):
        TripletLatents(t.unsafe, t.censored, t.benign[:0], (), t.vae)
    with pytest.raises(SafegenError, match="identical"):
        TripletLatents(t.unsafe, t.unsafe, t.benign, (), t.vae)


def test_broken_files_are_named(tiny_latents: TripletLatents, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(SafegenError, match=r"t\.safetensors: no such file"):
        TripletLatents.load(path)
    tiny_latents.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SafegenError, match=r"t\.safetensors: truncated"):
        TripletLatents.load(path)
