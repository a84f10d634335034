from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

import safegen
from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.errors import SafegenError
from safegen.triplets.source import Benign, Pair


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"unsafe": t.unsafe[:0], "censored": t.censored[:0]}, "no unsafe image"),
        (lambda t: {"benign": t.benign[:0], "captions": ()}, "no benign image"),
        (lambda t: {"censored": t.unsafe}, "identical"),
        (lambda t: {"censored": t.censored[1:]}, "'censored' has the shape"),
        (lambda t: {"benign": t.benign[..., 1:]}, "'benign' has the shape"),
        (lambda t: {"captions": t.captions[1:]}, "hold 5 captions for 6 benign images"),
    ],
)
def test_triplets_that_do_not_belong_together_are_refused(
    tiny_latents: TripletLatents, change: Any, message: str
) -> None:
    with pytest.raises(SafegenError, match=message):
        replace(tiny_latents, **change(tiny_latents))


def test_latents_of_another_size_than_the_models_are_refused(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    tiny_pipeline.unet.register_to_config(sample_size=12)
    with pytest.raises(SafegenError, match=r"\(4, 8, 8\), and the model's \(4, 12, 12\)"):
        safegen.edit(tiny_pipeline, tiny_latents)


def test_one_missing_caption_is_an_error(tiny_pipeline: Any, drawn_triplets: Any) -> None:
    class Gap(drawn_triplets):  # type: ignore[misc]
        def benign(self) -> Iterator[Benign]:
            for index, picture in enumerate(super().benign()):
                yield Benign(picture.image, None if index == 2 else picture.caption)

    with pytest.raises(SafegenError, match="benign image 3 has no caption"):
        encode_triplets(tiny_pipeline, Gap(), batch=2)


class Plain:
    """Pictures of 256 x 256, made as they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def pairs(self) -> Iterator[Pair]:
        for index in range(self.count):
            unsafe = np.full((256, 256, 3), index % 250, np.uint8)
            yield Pair(unsafe, unsafe + 1, f"picture {index}")

    def benign(self) -> Iterator[Benign]:
        for index in range(self.count):
            yield Benign(np.full((256, 256, 3), index % 250, np.uint8))

    def describe(self) -> dict[str, Any]:
        return {}


@contextmanager
def anonymous_memory() -> Iterator[list[int]]:
    """Bytes of memory that no file stands behind, looked up every few milliseconds (Linux)."""
    status, seen, over = Path("/proc/self/status"), list[int](), threading.Event()

    def watch() -> None:
        while not over.wait(0.003):
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
            assert found
            seen.append(1024 * int(found[1]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_memory_stays_flat_in_the_number_of_triplets(tiny_pipeline: Any, tmp_path: Path) -> None:
    count, picture, latent = 800, 256 * 256 * 3, 64 * 64 * 4 * 4
    tiny_pipeline.unet.register_to_config(sample_size=32)
    tiny_pipeline.vae = AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=4, latent_channels=4, mid_block_add_attention=False
    )  # fast, with latents as large as the pictures
    encode_triplets(tiny_pipeline, Plain(32)).save(tmp_path / "first.safetensors")
    gc.collect()
    with anonymous_memory() as seen:
        latents = encode_triplets(tiny_pipeline, Plain(count))
        latents.save(tmp_path / "t.safetensors")
        loaded = TripletLatents.load(tmp_path / "t.safetensors")
        assert loaded.digest() == latents.digest()
    assert latents.nbytes == 3 * count * latent
    # All pictures would take 472 MB, all latents 157 MB.
    assert max(seen) - seen[0] < 78e6 < 3 * count * min(picture, latent) / 2
