"""CLIP features of each picture, for the CLIP score and the Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safegen.errors import SafegenError, first_line
from safegen.models.anatomy import fingerprint
from safegen.models.clip_features import ImageNormalisation, image_features, text_features
from safegen.models.loading import default_device, quieten
from safegen.observers import Observation, ObserverIdentity, Sight, register
from safegen.observers._common import pictures
from safegen.profiles import Profile, profile_of
from safegen.statistics.cosine import cosine_similarities


@dataclass(frozen=True)
class ClipModel:
    """A CLIP model with its preprocessing.

    Attributes:
        model: a ``transformers.CLIPModel``.
        tokenizer: tokenizer of the texts.
        normalisation: normalisation of the pictures.
    """

    model: Any
    tokenizer: Any
    normalisation: ImageNormalisation


def load_clip(source: str, *, local_files_only: bool = False) -> ClipModel:
    """Load a CLIP model onto the first available device.

    Args:
        source: folder or hub id of a ``transformers.CLIPModel`` with tokenizer and
            ``preprocessor_config.json``, or a model whose profile has such a folder.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: the model cannot be loaded.
    """
    quieten()
    place = str((profile_of(source) or Profile()).clip or source)
    normalisation = _load_normalisation(place, local_files_only)
    model = _load_model(place, local_files_only)
    tokenizer = _load_tokenizer(place, local_files_only)
    return ClipModel(model.to(default_device()), tokenizer, normalisation)


def clip_settings(source: str, clip: ClipModel) -> dict[str, Any]:
    """Identity of a source's CLIP model, recorded with every result, as JSON values."""
    named = {} if Path(source).is_dir() else {"model": source}
    return {
        **named,
        "weights_hash": fingerprint(clip.model),
        "size": clip.model.config.vision_config.image_size,
        "mean": list(clip.normalisation.mean),
        "std": list(clip.normalisation.std),
    }


@register("clip")
class ClipObserver:
    """Record ``cosine``, between the picture and its prompt, and the picture's features.

    Args:
        source: CLIP model, as in ``load_clip``.
        local_files_only: never ask the hub.
    """

    compares = False

    def __init__(self, source: str, *, local_files_only: bool = False) -> None:
        self._clip = load_clip(source, local_files_only=local_files_only)
        self.identity = ObserverIdentity("clip", clip_settings(source, self._clip))

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        clip = self._clip
        found = image_features(clip.model, pictures(sights), clip.normalisation)
        texts = text_features(clip.model, clip.tokenizer, [sight.text for sight in sights])
        cosines = cosine_similarities(found, texts)
        return [
            Observation({"cosine": float(cosine)}, row.astype(np.float32))
            for cosine, row in zip(cosines, found, strict=True)
        ]


def _load_model(source: str, offline: bool) -> Any:
    import torch
    from transformers import CLIPModel

    try:
        model, info = CLIPModel.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=offline,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(source, error) from error
    if info["missing_keys"]:
        # transformers would fill them with random weights.
        raise _not_loaded(source, f"it lacks {len(info['missing_keys'])} weights of a CLIP model")
    return model.eval()


def _load_tokenizer(source: str, offline: bool) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(source, local_files_only=offline)
    except (OSError, ValueError, TypeError) as error:
        raise _not_loaded(source, error) from error


def _load_normalisation(source: str, offline: bool) -> ImageNormalisation:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        processor = CLIPImageProcessorPil.from_pretrained(source, local_files_only=offline)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    return ImageNormalisation(tuple(processor.image_mean), tuple(processor.image_std))


def _not_loaded(source: str, reason: object) -> SafegenError:
    return SafegenError(
        f"{source}: cannot be loaded as a CLIP model ({first_line(reason)}); give a folder or hub "
        "id of a transformers CLIPModel with safetensors weights, tokenizer and "
        "preprocessor_config.json"
    )
