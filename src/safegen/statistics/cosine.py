"""Cosine similarity of two sets of features, row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safegen.errors import SafegenError


def cosine_similarities(image_features: ArrayLike, text_features: ArrayLike) -> np.ndarray:
    """x . y / (|x| |y|) for each row of two arrays (N, D), as float64 (N,) in [-1, 1].

    Raises:
        SafegenError: no rows, different shapes, or a row that is zero or not finite.
    """
    images = np.asarray(image_features, dtype=np.float64)
    texts = np.asarray(text_features, dtype=np.float64)
    if images.shape != texts.shape or images.ndim != 2 or len(images) == 0:
        raise SafegenError(
            "a CLIP score needs one image and one text feature (N, D) an item; "
            f"got {images.shape} and {texts.shape}"
        )
    products = _unit_rows(images) * _unit_rows(texts)
    cosines: np.ndarray = np.clip(products.sum(axis=1), -1.0, 1.0)
    return cosines


def _unit_rows(features: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(features, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise SafegenError("a CLIP score needs finite features, none of them all zero")
    unit: np.ndarray = features / norms
    return unit
