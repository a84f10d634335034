"""A CLIP model's view of each picture, for the CLIP score and the Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safegen.errors import SafegenError
from safegen.lab import weights_folder
from safegen.metrics.clip_score import cosine_similarities
from safegen.models.anatomy import fingerprint
from safegen.models.clip_features import (
    LAB_NORMALISATION,
    ImageNormalisation,
    image_features,
    text_features,
)
from safegen.models.loading import LAB, default_device, quieten
from safegen.observers import Observation, ObserverIdentity, Sight, register
from safegen.observers._common import pictures


@register("clip")
class ClipObserver:
    """Records ``cosine``, of the picture and its prompt, and the picture's features.

    Args:
        source: ``lab``, or folder or hub id of a ``transformers.CLIPModel`` with its tokenizer
            and its ``preprocessor_config.json``.
    """

    compares = False

    def __init__(self, source: str) -> None:
        quieten()
        folder = weights_folder()
        if source == LAB:
            self._normalisation = LAB_NORMALISATION
            self._model = _load_model(folder / "clip")
            self._tokenizer = _load_tokenizer(folder / "tokenizer")
        else:
            self._normalisation = _load_normalisation(source)
            self._model = _load_model(source)
            self._tokenizer = _load_tokenizer(source)
        named = {} if Path(source).is_dir() and source != LAB else {"model": source}
        self.identity = ObserverIdentity(
            "clip",
            {
                **named,
                "weights_hash": fingerprint(self._model),
                "size": self._model.config.vision_config.image_size,
                "mean": list(self._normalisation.mean),
                "std": list(self._normalisation.std),
            },
        )
        self._model.to(default_device())

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        found = image_features(self._model, pictures(sights), self._normalisation)
        texts = text_features(self._model, self._tokenizer, [sight.text for sight in sights])
        cosines = cosine_similarities(found, texts)
        return [
            Observation({"cosine": float(cosine)}, row.astype(np.float32))
            for cosine, row in zip(cosines, found, strict=True)
        ]


def _load_model(source: str | Path) -> Any:
    import torch
    from transformers import CLIPModel

    try:
        model, info = CLIPModel.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(source, error) from error
    if info["missing_keys"]:
        # transformers would fill them with random weights.
        raise _not_loaded(source, f"it lacks {len(info['missing_keys'])} weights of a CLIP model")
    return model.eval()


def _load_tokenizer(source: str | Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise _not_loaded(source, error) from error


def _load_normalisation(source: str) -> ImageNormalisation:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        processor = CLIPImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    return ImageNormalisation(tuple(processor.image_mean), tuple(processor.image_std))


def _not_loaded(source: str | Path, reason: object) -> SafegenError:
    line = str(reason).strip().splitlines()[0]
    return SafegenError(
        f"{source}: cannot be loaded as a CLIP model ({line}); give a folder or hub id of a "
        "transformers CLIPModel with safetensors weights, tokenizer and preprocessor_config.json"
    )
