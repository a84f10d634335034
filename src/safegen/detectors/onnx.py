"""Any ONNX image classifier or detector, by path and label names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np
from PIL import Image

from safegen.detectors import Box, Detection, DetectorIdentity, register
from safegen.detectors._common import build, check_images, check_threshold, read_fields
from safegen.errors import SafegenError, first_line
from safegen.files import file_hash

Activation = Literal["none", "softmax", "sigmoid"]
LARGEST_SIDE = 8192
"""Largest side, in pixels, to which pictures may be resized."""
_SCORE_SLACK = 1e-3
"""Tolerance for half-precision probabilities outside [0, 1]."""


@dataclass(frozen=True)
class OnnxSettings:
    """Input and output of an ONNX model.

    The model has one image input, (N, 3, H, W) or (N, H, W, 3), and either one output (N, labels),
    or two named ``scores`` (N, labels) and ``boxes`` (N, labels, 4), with boxes as (left, top,
    right, bottom) in pixels of the input.

    Attributes:
        model: ``.onnx`` file.
        labels: names of the score columns.
        unsafe_labels: labels that count as unsafe; empty means all.
        threshold: lowest score that counts.
        size: (height, width) of the resized pictures.
        mean, std: per-channel normalisation of pixels in [0, 1].
        activation: function from the model's answer to scores in [0, 1].
        name, version: recorded with every result; an empty version means the file's hash.
        batch_size: pictures per pass; a model with a fixed batch size uses its own.
    """

    model: Path
    labels: tuple[str, ...]
    unsafe_labels: tuple[str, ...] = ()
    threshold: float = 0.5
    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    activation: Activation = "none"
    name: str = "onnx"
    version: str = ""
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_threshold(self.threshold, self.name)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            self._refuse(f"labels must name each class once, in order, not {self.labels}")
        unknown = sorted(set(self.unsafe_labels) - set(self.labels))
        if unknown:
            self._refuse(f"unsafe_labels has {', '.join(unknown)}, not among labels")
        if len(self.size) != 2 or not 1 <= min(self.size) <= max(self.size) <= LARGEST_SIDE:
            self._refuse(f"size must be two numbers from 1 to {LARGEST_SIDE}, not {self.size}")
        if len(self.mean) != 3 or len(self.std) != 3 or 0 in self.std:
            self._refuse("mean and std need three numbers each, and none of std may be 0")
        if self.activation not in get_args(Activation):
            allowed = ", ".join(get_args(Activation))
            self._refuse(f"activation must be one of {allowed}, not {self.activation!r}")
        if self.batch_size < 1:
            self._refuse(f"batch_size must be at least 1, not {self.batch_size}")

    def _refuse(self, problem: str) -> NoReturn:
        raise SafegenError(f"detector {self.name}: {problem}")

    @property
    def counted_labels(self) -> tuple[str, ...]:
        """Labels that count as unsafe."""
        return self.unsafe_labels or self.labels


class OnnxDetector:
    """ONNX classifier or detector, run by onnxruntime.

    A classifier gives detections without boxes; a detector's boxes are scaled and clipped to the
    picture.

    Args:
        settings: input and output of the model.
        fit: function that resizes a uint8 picture (H, W, 3) to ``settings.size`` in the model's own
            way (default: resize it whole).
    """

    def __init__(
        self, settings: OnnxSettings, fit: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.settings = settings
        self._fit = fit or self._resize
        self._session = _open_session(settings.model)
        self._input = self._only_input()
        self._mean = np.array(settings.mean, np.float32)
        self._std = np.array(settings.std, np.float32)
        self._channels_last = self._input.shape[3] == 3 and self._input.shape[1] != 3
        self._check_size()
        self._outputs = self._output_names()
        digest = file_hash(settings.model)
        self.identity = DetectorIdentity(
            settings.name,
            settings.version or digest[:12],
            digest,
            settings.threshold,
            settings.counted_labels,
        )

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See ``Detector.detect``."""
        check_images(images)
        fixed = self._input.shape[0]
        step = fixed if isinstance(fixed, int) else self.settings.batch_size
        found: list[list[Detection]] = []
        for start in range(0, len(images), step):
            chunk = images[start : start + step]
            scores, boxes = self._run(chunk, step if isinstance(fixed, int) else len(chunk))
            for row, image in enumerate(chunk):
                row_boxes = None if boxes is None else boxes[row]
                found.append(self._detections(scores[row], row_boxes, image.shape))
        return found

    def _run(self, images: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores (N, labels) in [0, 1] and boxes (N, labels, 4); ``rows`` fills a fixed batch."""
        dtype = np.float16 if "float16" in self._input.type else np.float32
        height, width = self.settings.size
        shape = (height, width, 3) if self._channels_last else (3, height, width)
        batch = np.zeros((rows, *shape), dtype)
        for row, image in enumerate(images):
            batch[row] = self._prepare(image)
        answers = self._session.run(self._outputs, {self._input.name: batch})
        kept = [np.asarray(answer, np.float32)[: len(images)] for answer in answers]
        return self._scores(kept[0], len(images)), kept[1] if len(kept) == 2 else None

    def _prepare(self, image: np.ndarray) -> np.ndarray:
        """Normalise one uint8 picture (H, W, 3) as the model's input."""
        pixels = (self._fit(image) / np.float32(255) - self._mean) / self._std
        return np.asarray(pixels if self._channels_last else pixels.transpose(2, 0, 1))

    def _resize(self, image: np.ndarray) -> np.ndarray:
        height, width = self.settings.size
        if image.shape[:2] == (height, width):
            return image
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def _scores(self, answer: np.ndarray, count: int) -> np.ndarray:
        expected = (count, len(self.settings.labels))
        if answer.shape != expected:
            raise SafegenError(
                f"{self.settings.model}: answers scores {answer.shape} where {expected} was "
                f"expected; name its classes in labels, in order"
            )
        scores = activate(answer, self.settings.activation)
        if not np.isfinite(scores).all():
            raise SafegenError(f"{self.settings.model}: answers scores that are not finite")
        if scores.min() < -_SCORE_SLACK or scores.max() > 1 + _SCORE_SLACK:
            raise SafegenError(
                f"{self.settings.model}: answers scores from {scores.min():g} to "
                f"{scores.max():g}, not in [0, 1]; set activation to softmax or sigmoid"
            )
        return scores.clip(0, 1)

    def _detections(
        self, scores: np.ndarray, boxes: np.ndarray | None, shape: tuple[int, ...]
    ) -> list[Detection]:
        found = []
        for column, label in enumerate(self.settings.labels):
            if label in self.settings.counted_labels and scores[column] >= self.settings.threshold:
                box = None if boxes is None else self._to_picture(boxes[column], shape)
                found.append(Detection(label, float(scores[column]), box))
        return sorted(found, key=lambda detection: -detection.score)

    def _to_picture(self, box: np.ndarray, shape: tuple[int, ...]) -> Box:
        (height, width), (rows, columns) = shape[:2], self.settings.size
        scale = np.array([width / columns, height / rows] * 2)
        limits = np.array([width, height] * 2)
        left, top, right, bottom = (box * scale).clip(0, limits).tolist()
        return left, top, right, bottom

    def _only_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or "float" not in inputs[0].type:
            given = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise SafegenError(
                f"{self.settings.model}: needs one floating-point image input with four "
                f"dimensions, but has {given}"
            )
        return inputs[0]

    def _check_size(self) -> None:
        shape = self._input.shape
        wanted = tuple(shape[1:3] if self._channels_last else shape[2:4])
        for given, side in zip(self.settings.size, wanted, strict=True):
            if isinstance(side, int) and side != given:
                raise SafegenError(
                    f"{self.settings.model}: takes pictures of {wanted}, "
                    f"but size is {self.settings.size}; set size to the former"
                )

    def _output_names(self) -> list[str]:
        names = [output.name for output in self._session.get_outputs()]
        if {"scores", "boxes"} <= set(names):
            return ["scores", "boxes"]
        if len(names) == 1:
            return names
        raise SafegenError(
            f"{self.settings.model}: has outputs {', '.join(names)}; it must have one, "
            "or two named scores and boxes"
        )


def activate(answer: np.ndarray, activation: Activation) -> np.ndarray:
    """Turn a model's answer (N, labels) into scores: softmax over labels, sigmoid, or identity."""
    if activation == "softmax":
        exponentials = np.exp(answer - answer.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(answer / 2)))
    return answer


def read_settings(file: Path) -> OnnxSettings:
    """Read settings from a JSON object with the fields of ``OnnxSettings``.

    ``model`` is relative to the JSON file's folder.

    Raises:
        SafegenError: the file is missing or no JSON object, or a field is unknown, missing or of
            the wrong type.
    """
    values = read_fields(file, OnnxSettings, ("model", "labels"))
    return build(file, OnnxSettings, {**values, "model": file.parent / values["model"]})


@register("onnx")
def onnx(settings_file: str, *, threshold: float | None = None) -> OnnxDetector:
    """Model described by a JSON file; see ``read_settings``."""
    settings = read_settings(Path(settings_file))
    if threshold is not None:
        settings = dataclasses.replace(settings, threshold=threshold)
    return OnnxDetector(settings)


def _open_session(model: Path) -> Any:
    import onnxruntime

    if not model.is_file():
        raise SafegenError(f"{model}: no such ONNX file; check the path")
    available = onnxruntime.get_available_providers()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [provider for provider in wanted if provider in available]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _usable_cores()
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no narrower base
        raise SafegenError(
            f"{model}: onnxruntime cannot open it ({first_line(error)}); get it again"
        ) from error


def _usable_cores() -> int:
    """Cores that this process may use; 0, which leaves the choice to onnxruntime, if unknown."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
