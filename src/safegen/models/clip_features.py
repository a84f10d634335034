"""CLIP features of pictures and texts, for the CLIP score and the Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from safegen.errors import SafegenError


@dataclass(frozen=True)
class ImageNormalisation:
    """Normalisation of pixels for a CLIP model: (x / 255 - mean) / std for red, green and blue.

    Attributes:
        mean: mean of pixels in [0, 1].
        std: standard deviation, positive.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise SafegenError(f"the normalisation's std must be positive; got {self.std}")


@torch.no_grad()
def image_features(
    model: Any, images: Sequence[np.ndarray], normalisation: ImageNormalisation, batch: int = 64
) -> np.ndarray:
    """Project image features of a ``transformers.CLIPModel``, float32 (N, D), not normalised.

    Args:
        model: CLIP model; it stays on its device.
        images: uint8 pictures (H, W, 3) of one size, each resized whole to the model's square
            input, bicubic with antialiasing.
        normalisation: normalisation of the model's training.
        batch: pictures per forward pass.
    """
    side = model.config.vision_config.image_size
    rows = []
    for start in range(0, len(images), batch):
        pixels = _pixel_values(images[start : start + batch], side, normalisation)
        pooled = model.vision_model(pixel_values=pixels.to(model.device, model.dtype)).pooler_output
        rows.append(model.visual_projection(pooled).float().cpu().numpy())
    return np.concatenate(rows)


@torch.no_grad()
def text_features(model: Any, tokenizer: Any, texts: Sequence[str], batch: int = 256) -> np.ndarray:
    """Project text features of a ``transformers.CLIPModel``, float32 (N, D), not normalised.

    Texts longer than the model's context are truncated.
    """
    length = model.config.text_config.max_position_embeddings
    rows = []
    for start in range(0, len(texts), batch):
        tokens = tokenizer(
            list(texts[start : start + batch]),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(model.device)
        pooled = model.text_model(**tokens).pooler_output
        rows.append(model.text_projection(pooled).float().cpu().numpy())
    return np.concatenate(rows)


def _pixel_values(
    images: Sequence[np.ndarray], side: int, normalisation: ImageNormalisation
) -> torch.Tensor:
    """Prepare pixels (N, 3, side, side) for the model."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()  # (N, 3, H, W)
    if pixels.shape[2:] != (side, side):
        resize = torch.nn.functional.interpolate
        pixels = resize(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 255)
    mean = torch.tensor(normalisation.mean).view(3, 1, 1)
    std = torch.tensor(normalisation.std).view(3, 1, 1)
    return (pixels / 255 - mean) / std
