"""Triplets as latents: all that an edit needs, in one small file without pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, fingerprint, tensor_digest
from safegen.tensors import read_tensors, write_tensors
from safegen.triplets.source import TripletSource

FORMAT = "safegen-triplet-latents/1"
T = TypeVar("T")


@dataclass(frozen=True)
class TripletLatents:
    """Encoded triplets.

    Attributes:
        unsafe: scaled latents (N, C, H, W), float32.
        censored: those of their censored forms, same shape.
        benign: scaled latents (M, C, H, W).
        captions: M texts of the benign pictures, or empty where they have none.
        vae: fingerprint of the autoencoder they were encoded with.
        source: where the pictures came from.
    """

    unsafe: torch.Tensor
    censored: torch.Tensor
    benign: torch.Tensor
    captions: tuple[str, ...]
    vae: str
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.unsafe) == 0:
            raise SafegenError("the triplets hold no unsafe image, so there is nothing to remove")
        if len(self.benign) == 0:
            raise SafegenError("the triplets hold no benign image, so nothing would be preserved")
        same = (self.unsafe == self.censored).flatten(1).all(dim=1)
        if bool(same.any()):
            raise SafegenError(
                f"triplet {int(same.nonzero()[0, 0]) + 1}: the unsafe and the censored image are "
                "identical, so nothing would be removed; censor it"
            )

    def digest(self) -> str:
        """SHA-256 of the latents and captions."""
        digest = hashlib.sha256(json.dumps(self.captions).encode())
        for value in (self.unsafe, self.censored, self.benign):
            digest.update(tensor_digest(value))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        tensors = {"unsafe": self.unsafe, "censored": self.censored, "benign": self.benign}
        metadata = {"captions": self.captions, "vae": self.vae, "source": self.source}
        write_tensors(path, FORMAT, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> TripletLatents:
        """Read what ``save`` wrote."""
        tensors, metadata = read_tensors(
            path,
            FORMAT,
            kind="file",
            foreign="no triplet latents; make them with 'safegen triplets'",
            mend="make it again",
        )
        return cls(
            tensors["unsafe"],
            tensors["censored"],
            tensors["benign"],
            tuple(metadata["captions"]),
            metadata["vae"],
            metadata["source"],
        )


def encode_triplets(pipeline: Any, source: TripletSource, batch: int = 16) -> TripletLatents:
    """Encode a source's pictures with the pipeline's autoencoder, streaming.

    Pictures are scaled and centre-cropped to the model's size. Latents are the posterior's
    means, so encoding takes no random draw.
    """
    size = model_size(pipeline)
    unsafe, censored, benign = [], [], []
    for pairs in _batches(source.pairs(), batch):
        unsafe.append(_encode(pipeline, [pair.unsafe for pair in pairs], size))
        censored.append(_encode(pipeline, [pair.censored for pair in pairs], size))
    captions: list[str | None] = []
    for pictures in _batches(source.benign(), batch):
        benign.append(_encode(pipeline, [picture.image for picture in pictures], size))
        captions += [picture.caption for picture in pictures]
    texts = [caption for caption in captions if caption is not None]
    return TripletLatents(
        _join(unsafe),
        _join(censored),
        _join(benign),
        tuple(texts) if len(texts) == len(captions) else (),
        fingerprint(pipeline.vae),
        source.describe(),
    )


def model_size(pipeline: Any) -> int:
    """Side of the model's pictures, in pixels."""
    return int(denoiser_of(pipeline).config.sample_size * pipeline.vae_scale_factor)  # type: ignore


@torch.no_grad()
def _encode(pipeline: Any, images: list[np.ndarray], size: int) -> torch.Tensor:
    vae = pipeline.vae
    pixels = torch.stack([_to_tensor(image, size) for image in images])
    mean = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean
    latents: torch.Tensor = (mean.float() * vae.config.scaling_factor).cpu()
    return latents


def _to_tensor(image: np.ndarray, size: int) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (3, size, size) in [-1, 1], centre-cropped."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    if side != size:
        square = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float().div(127.5).sub(1.0)


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.empty(0, 1, 1, 1)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
