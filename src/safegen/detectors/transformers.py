"""Any image classifier of transformers, by folder or hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from safegen.detectors import Detection, DetectorIdentity, register
from safegen.detectors._common import build, check_images, check_threshold, read_fields
from safegen.detectors.onnx import Activation, activate
from safegen.errors import SafegenError, first_line
from safegen.models.loading import default_device, quieten
from safegen.models.weights import content_hash, model_folder, weight_files, weights_hash


@dataclass(frozen=True)
class TransformersSettings:
    """Classifier and the reading of its answer.

    Attributes:
        model: folder or hub id with an image classifier, its image processor and safetensors.
        unsafe_labels: labels that count as unsafe.
        threshold: lowest score that counts.
        name: recorded with every result.
        batch_size: pictures per pass.
    """

    model: str
    unsafe_labels: tuple[str, ...]
    threshold: float = 0.5
    name: str = "transformers"
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_threshold(self.threshold, self.name)
        if not self.unsafe_labels or len(set(self.unsafe_labels)) < len(self.unsafe_labels):
            raise SafegenError(
                f"detector {self.name}: unsafe_labels must name each class once, "
                f"not {self.unsafe_labels}"
            )
        if self.batch_size < 1:
            raise SafegenError(
                f"detector {self.name}: batch_size must be at least 1, not {self.batch_size}"
            )


class TransformersDetector:
    """Image classifier, with the Pillow version of its image processor.

    Scores are a softmax over the labels, or a sigmoid of each for a multi-label model.

    Args:
        settings: settings of the classifier.
        local_files_only: never ask the hub.
    """

    def __init__(self, settings: TransformersSettings, *, local_files_only: bool = False) -> None:
        folder = model_folder(settings.model, local_files_only=local_files_only)
        self._model, self._processor = _load(folder)
        self._model.to(default_device())
        config = self._model.config
        self._labels = [config.id2label[column] for column in range(config.num_labels)]
        self._activation = _activation(config)
        self._batch_size = settings.batch_size
        _check_labels(settings, self._labels)
        self.identity = DetectorIdentity(
            settings.name,
            content_hash(folder)[:12],
            weights_hash(folder),
            settings.threshold,
            settings.unsafe_labels,
        )

    @torch.no_grad()
    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        check_images(images)
        found: list[list[Detection]] = []
        for start in range(0, len(images), self._batch_size):
            batch = [Image.fromarray(image) for image in images[start : start + self._batch_size]]
            inputs = self._processor(batch, return_tensors="pt").to(self._model.device)
            logits = self._model(**inputs).logits.float().cpu().numpy()
            if not np.isfinite(logits).all():
                raise SafegenError(f"detector {self.identity.name}: its scores are not finite")
            found += [self._detections(row) for row in activate(logits, self._activation)]
        return found

    def _detections(self, scores: np.ndarray) -> list[Detection]:
        found = [
            Detection(label, float(score))
            for label, score in zip(self._labels, scores, strict=True)
            if label in self.identity.labels and score >= self.identity.threshold
        ]
        return sorted(found, key=lambda detection: -detection.score)


def read_settings(file: Path) -> TransformersSettings:
    """Read settings from a JSON file; a model's path is relative to the file's folder.

    Raises:
        SafegenError: the file or a field is invalid.
    """
    values = read_fields(file, TransformersSettings, ("model", "unsafe_labels"))
    beside = file.parent / values["model"]
    model = str(beside) if beside.is_dir() else values["model"]
    return build(file, TransformersSettings, {**values, "model": model})


@register("transformers")
def transformers(
    model: str,
    *,
    unsafe: tuple[str, ...] = (),
    threshold: float | None = None,
    local_files_only: bool = False,
) -> TransformersDetector:
    """Classifier of a folder or hub id, or of a JSON file.

    Raises:
        SafegenError: the unsafe labels are missing, or also given by the file.
    """
    described = Path(model).suffix.lower() == ".json"
    if described == bool(unsafe):
        raise SafegenError(
            f"detector transformers:{model}: say once which of its labels count as unsafe, in a "
            f"settings file, or with transformers:{model},unsafe=LABEL+LABEL"
        )
    settings = read_settings(Path(model)) if described else TransformersSettings(model, unsafe)
    if threshold is not None:
        settings = replace(settings, threshold=threshold)
    return TransformersDetector(settings, local_files_only=local_files_only)


def _load(folder: Path) -> tuple[Any, Any]:
    """Load a folder's classifier in float32 and its image processor."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    quieten()
    weight_files(folder)
    here = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, info = AutoModelForImageClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **here
        )
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **here)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise _not_loaded(folder, first_line(error)) from error
    if info["missing_keys"]:
        # transformers would fill them with random weights.
        raise _not_loaded(folder, f"it lacks {len(info['missing_keys'])} weights of its class")
    if getattr(processor, "backend", None) != "pil":
        raise _not_loaded(folder, "its image processor does not work without torchvision")
    return model.eval(), processor


def _activation(config: Any) -> Activation:
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _check_labels(settings: TransformersSettings, labels: list[str]) -> None:
    unknown = sorted(set(settings.unsafe_labels) - set(labels))
    if unknown:
        raise SafegenError(
            f"detector {settings.name}: unsafe labels {', '.join(unknown)} are not among those of "
            f"{settings.model}: {', '.join(labels)}"
        )


def _not_loaded(folder: Path, reason: str) -> SafegenError:
    return SafegenError(
        f"{folder}: cannot be loaded as an image classifier ({reason}); give a folder or hub id "
        "of transformers with config.json, preprocessor_config.json and safetensors weights"
    )
