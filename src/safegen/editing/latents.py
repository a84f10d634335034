"""Triplets as latents: the input of an edit, in one small file without pictures."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint, model_size
from safegen.models.autoencoder import PIXELS, encode_pixels
from safegen.models.families import family_of
from safegen.tensors import write_tensors
from safegen.triplets.schema import SCHEMA
from safegen.triplets.source import TripletSource

NOTICE = (
    "These latents are as sensitive as the pictures they were made of: the model's autoencoder "
    "decodes them. Store and share them under the same rules."
)
T = TypeVar("T")
CHUNK = 256
"""Latents per pass, which bounds the memory of a pass over all."""


@dataclass(frozen=True)
class HeldBack:
    """Pairs that an edit is not trained on.

    Attributes:
        unsafe: scaled latents (N, C, H, W); N may be 0.
        censored: latents of the censored forms, same shape.
    """

    unsafe: torch.Tensor
    censored: torch.Tensor


@dataclass(frozen=True)
class TripletLatents:
    """Encoded triplets.

    Latents read from a file or encoded from pictures are memory-mapped and take hardly any
    memory.

    Attributes:
        unsafe: scaled latents (N, C, H, W), float32.
        censored: latents of the censored forms, same shape.
        benign: scaled latents (M, C, H, W).
        captions: M captions of the benign pictures, or empty without captions.
        vae: fingerprint of the encoding autoencoder.
        source: provenance of the pictures.
        place: their file, for messages.
    """

    unsafe: torch.Tensor
    censored: torch.Tensor
    benign: torch.Tensor
    captions: tuple[str, ...]
    vae: str
    source: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="the triplets", compare=False)

    def __post_init__(self) -> None:
        if len(self.unsafe) == 0:
            raise SafegenError("the triplets hold no unsafe image, so there is nothing to remove")
        if len(self.benign) == 0:
            raise SafegenError("the triplets hold no benign image, so nothing would be preserved")
        SCHEMA.check("the triplets", self._tensors)
        if self.captions and len(self.captions) != len(self.benign):
            raise SafegenError(
                f"the triplets hold {len(self.captions)} captions for {len(self.benign)} benign "
                "images; give one for each, or none"
            )
        if not all(isinstance(caption, str) for caption in self.captions):
            raise SafegenError("the triplets have a caption that is no text; encode them again")
        self._check_values()

    def _check_values(self) -> None:
        for name, latents in self._tensors.items():
            for few in torch.split(latents, CHUNK):
                if not bool(torch.isfinite(few).all()):
                    raise SafegenError(
                        f"the triplets' {name} latents hold NaN or infinity; encode them again"
                    )
        for start in range(0, len(self.unsafe), CHUNK):
            part = slice(start, start + CHUNK)
            same = (self.unsafe[part] == self.censored[part]).flatten(1).all(dim=1)
            if bool(same.any()):
                raise SafegenError(
                    f"triplet {start + int(same.nonzero()[0, 0]) + 1}: the unsafe and the "
                    "censored image are identical, so nothing would be removed; censor it"
                )

    def check_fit(self, pipeline: Any) -> None:
        """Refuse a model that does not fit these latents.

        Raises:
            SafegenError: its autoencoder or picture size differs.
        """
        if self.vae != fingerprint(pipeline.vae):
            raise SafegenError(
                f"{self.place}: encoded with another autoencoder than this model's; encode the "
                "pictures again with 'safegen triplets'"
            )
        shape = family_of(pipeline).latent_shape(pipeline)
        if tuple(self.unsafe.shape[1:]) != shape:
            raise SafegenError(
                f"{self.place}: the latents are {tuple(self.unsafe.shape[1:])}, and the model's "
                f"{shape}; encode the pictures again with 'safegen triplets'"
            )

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return {"unsafe": self.unsafe, "censored": self.censored, "benign": self.benign}

    @property
    def nbytes(self) -> int:
        """Size of all latents in bytes."""
        return sum(value.nbytes for value in self._tensors.values())

    def without_last(self, count: int) -> tuple[TripletLatents, HeldBack]:
        """Split off the last ``count`` pairs, but at most a tenth of all; returns the rest, and the
        pairs that were split off."""
        kept = len(self.unsafe) - min(count, len(self.unsafe) // 10)
        rest = replace(self, unsafe=self.unsafe[:kept], censored=self.censored[:kept])
        return rest, HeldBack(self.unsafe[kept:], self.censored[kept:])

    def distance(self) -> float:
        """Mean square of z_u - z_c over all values."""
        parts = zip(torch.split(self.unsafe, CHUNK), torch.split(self.censored, CHUNK), strict=True)
        total = sum(float((u - c).double().square().sum()) for u, c in parts)
        return total / self.unsafe.numel()

    def digest(self) -> str:
        """SHA-256 of the latents and captions."""
        digest = hashlib.sha256(json.dumps(self.captions).encode())
        for value in self._tensors.values():
            digest.update(_digest(value))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the latents as safetensors."""
        metadata = {
            "notice": NOTICE, "captions": self.captions, "vae": self.vae, "source": self.source,
        }  # fmt: skip
        write_tensors(path, SCHEMA.form, self._tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> TripletLatents:
        """Read latents that ``save`` wrote.

        Raises:
            SafegenError: the file is missing, damaged, or holds no usable latents.
        """
        tensors, metadata = SCHEMA.read(path)
        captions, vae = tuple(metadata["captions"]), metadata["vae"]
        try:
            return cls(
                **tensors,
                captions=captions,
                vae=vae,
                source=metadata["source"],
                place=str(path),
            )
        except SafegenError as error:
            raise SafegenError(f"{path}: {error}") from error


def encode_triplets(
    pipeline: Any, source: TripletSource, batch: int | None = None
) -> TripletLatents:
    """Encode a source's pictures with the pipeline's autoencoder, streaming.

    Latents are spooled to a temporary file, so memory does not grow with their number.

    Pictures are scaled and centre-cropped to the model's size. Latents are posterior means, so
    encoding draws nothing at random.
    """
    size = model_size(pipeline)
    batch = batch or max(1, min(16, PIXELS // size**2))
    unsafe, censored, benign = _Spool(), _Spool(), _Spool()
    for pairs in _batches(source.pairs(), batch):
        unsafe.add(_encode(pipeline, [pair.unsafe for pair in pairs], size))
        censored.add(_encode(pipeline, [pair.censored for pair in pairs], size))
    captions: list[str | None] = []
    for pictures in _batches(source.benign(), batch):
        benign.add(_encode(pipeline, [picture.image for picture in pictures], size))
        captions += [picture.caption for picture in pictures]
        _check_captions(captions)
    return TripletLatents(
        unsafe.latents(),
        censored.latents(),
        benign.latents(),
        tuple(caption for caption in captions if caption is not None),
        fingerprint(pipeline.vae),
        source.describe(),
    )


def _check_captions(captions: Sequence[str | None]) -> None:
    missing = [index for index, caption in enumerate(captions, 1) if caption is None]
    if 0 < len(missing) < len(captions):
        raise SafegenError(
            f"benign image {missing[0]} has no caption, and others have one; give each a caption, "
            "or none to any"
        )


def _encode(pipeline: Any, images: list[np.ndarray], size: int) -> torch.Tensor:
    pixels = torch.stack([_to_tensor(image, size) for image in images])
    return encode_pixels(pipeline.vae, pixels)


def _to_tensor(image: np.ndarray, size: int) -> torch.Tensor:
    """Convert uint8 (H, W, 3) to float32 (3, size, size) in [-1, 1], centre-cropped."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    if side != size:
        square = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float().div(127.5).sub(1.0)


class _Spool:
    """Latents (N, C, H, W), float32, in a temporary file that is deleted after its last use."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this object)
        self._shape: tuple[int, ...] = (0, 1, 1, 1)

    def add(self, latents: torch.Tensor) -> None:
        self._shape = (self._shape[0] + len(latents), *latents.shape[1:])
        self._file.write(latents.contiguous().numpy().data)

    def latents(self) -> torch.Tensor:
        """Memory-map all latents added so far."""
        if not self._shape[0]:
            return torch.empty(self._shape)
        self._file.flush()
        return torch.from_numpy(np.memmap(self._file, np.float32, "r+", shape=self._shape))


def _digest(value: torch.Tensor) -> bytes:
    """Compute ``tensor_digest`` without copying the whole tensor."""
    digest = hashlib.sha256()
    for part in torch.split(value, CHUNK):
        digest.update(part.contiguous().numpy().data)
    return digest.digest()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
