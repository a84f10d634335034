"""Stable Diffusion's safety checker: built from any CLIP or loaded, and its margins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from safegen.errors import SafegenError, first_line
from safegen.models.clip_features import ImageNormalisation
from safegen.models.weights import weight_files

SPECIAL_CARE = 0.01
"""Amount by which all margins rise once a picture is near a special-care concept."""


def checker_from_clip(clip: Any, concepts: torch.Tensor, thresholds: torch.Tensor) -> Any:
    """Build a ``StableDiffusionSafetyChecker`` from a CLIP's vision half and given concepts.

    A picture is flagged if its cosine to any concept exceeds that concept's threshold.

    Args:
        clip: a ``transformers.CLIPModel``.
        concepts: text features (K, D), float32.
        thresholds: cosines (K,), float32.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    # A copy, since loading adds an attention that the checker's class does not know.
    checker = StableDiffusionSafetyChecker(type(clip.config).from_dict(clip.config.to_dict()))
    own = checker.vision_model.state_dict()
    # Versions of transformers differ only in the position of a prefix.
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in own) else ""
    weights = clip.vision_model.state_dict()
    checker.vision_model.load_state_dict({f"{prefix}{name}": w for name, w in weights.items()})
    checker.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    for name, value in (
        ("concept_embeds", concepts),
        ("concept_embeds_weights", thresholds),
        ("special_care_embeds", concepts[:0]),
        ("special_care_embeds_weights", thresholds[:0]),
    ):
        setattr(checker, name, torch.nn.Parameter(value.clone(), requires_grad=False))
    return checker.eval()


def image_processor(clip_config: Any, normalisation: ImageNormalisation) -> Any:
    """Build the image processor of a checker: CLIP's size and normalisation."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = clip_config.vision_config.image_size
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(normalisation.mean),
        image_std=list(normalisation.std),
    )


class CheckedImages:
    """Image processor of a pipeline whose call has no place for a checker.

    Attributes:
        flags: whether each picture of the last call was flagged, and so is black.

    Args:
        own: the pipeline's own image processor.
        checker: a ``StableDiffusionSafetyChecker``.
        processor: the checker's image processor.
    """

    def __init__(self, own: Any, checker: Any, processor: Any) -> None:
        self.flags: list[bool] = []
        self._own, self._checker, self._processor = own, checker, processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def postprocess(self, image: torch.Tensor, output_type: str = "pil", **options: Any) -> Any:
        """Decode pictures as the pipeline's own processor does, and black out flagged ones."""
        pictures = self._own.postprocess(image, output_type="np", **options)
        shown = [Image.fromarray((each * 255).round().astype(np.uint8)) for each in pictures]
        inputs = self._processor(shown, return_tensors="pt").pixel_values
        weight = self._checker.visual_projection.weight
        checked, self.flags = self._checker(
            images=pictures, clip_input=inputs.to(weight.device, weight.dtype)
        )
        return checked if output_type == "np" else self._own.numpy_to_pil(checked)


def checker_folders(folder: Path) -> tuple[Path, Path]:
    """Locate a folder's checker and image processor: itself, or two parts of a pipeline."""
    if (folder / "safety_checker").is_dir():
        return folder / "safety_checker", folder / "feature_extractor"
    return folder, folder


def load_checker(folder: Path) -> tuple[Any, Any]:
    """Load a published checker and its image processor, from its own folder or a pipeline's.

    Raises:
        SafegenError: it cannot be loaded, or lacks some weights.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    place, processor_place = checker_folders(folder)
    weight_files(place)
    try:
        checker, info = StableDiffusionSafetyChecker.from_pretrained(
            place,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        processor = CLIPImageProcessorPil.from_pretrained(processor_place, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(folder, first_line(error)) from error
    if info["missing_keys"]:
        # transformers would fill them with random weights.
        raise _not_loaded(folder, f"it lacks {len(info['missing_keys'])} weights of a checker")
    return checker.eval(), processor


@torch.no_grad()
def concept_margins(checker: Any, processor: Any, images: Sequence[np.ndarray]) -> np.ndarray:
    """Cosine of each picture's nearest concept minus its threshold, float64 (N,).

    As in the checker, margins are rounded to 0.001 and raised by ``SPECIAL_CARE`` near a
    special-care concept; a picture with a positive margin is flagged.

    Args:
        checker: a ``StableDiffusionSafetyChecker``.
        processor: its image processor.
        images: uint8 pictures (H, W, 3).
    """
    inputs = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    weight = checker.visual_projection.weight
    pooled = checker.vision_model(inputs.pixel_values.to(weight.device, weight.dtype))[1]
    features = torch.nn.functional.normalize(checker.visual_projection(pooled))  # (N, D)
    special = _margins(features, checker.special_care_embeds, checker.special_care_embeds_weights)
    near = (special.round(3) > 0).any(axis=1, keepdims=True)
    margins = _margins(features, checker.concept_embeds, checker.concept_embeds_weights)
    return np.asarray((margins + SPECIAL_CARE * near).round(3).max(axis=1))


def _margins(
    features: torch.Tensor, concepts: torch.Tensor, thresholds: torch.Tensor
) -> np.ndarray:
    """Cosines minus thresholds, float64 (N, K)."""
    cosines = features @ torch.nn.functional.normalize(concepts).T
    return np.asarray(cosines.double().cpu().numpy() - thresholds.double().cpu().numpy())


def _not_loaded(folder: Path, reason: str) -> SafegenError:
    return SafegenError(
        f"{folder}: cannot be loaded as a safety checker ({reason}); give a folder or hub id "
        "with its config.json, safetensors weights and preprocessor_config.json"
    )
