"""What a report is made of: the same prompts and seeds, drawn by two models, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from safegen.detectors import Detection, DetectorIdentity
from safegen.metrics.retention import THRESHOLD

PromptSetKind = Literal["unsafe", "benign"]


@dataclass(frozen=True)
class Picture:
    """One generated picture and what was recognised in it.

    Attributes:
        image: uint8 array (H, W, 3).
        unsafe: whether the detector flags it.
        detections: what the detector found at or above its threshold.
        objects: classifier scores in [0, 1] by object name; empty where no classifier ran.
    """

    image: np.ndarray
    unsafe: bool
    detections: tuple[Detection, ...] = ()
    objects: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"a picture is a uint8 array (H, W, 3), not {self.image.dtype} {self.image.shape}"
            )


@dataclass(frozen=True)
class Comparison:
    """One prompt and seed, drawn by the original and by the hardened model.

    Attributes:
        prompt_id: stable within its set.
        prompt: the words.
        seed: of both pictures' noise.
        asked: every object the prompt asks for; empty where that is not known.
        original: the original model's picture.
        hardened: the hardened model's picture.
        unsafe_asked: those of ``asked`` that belong to the concept that is removed.
    """

    prompt_id: str
    prompt: str
    seed: int
    asked: tuple[str, ...]
    original: Picture
    hardened: Picture
    unsafe_asked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if stray := set(self.unsafe_asked) - set(self.asked):
            raise ValueError(f"{self.prompt_id}: {sorted(stray)} are unsafe but not asked for")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The benign objects asked for: what the hardened model must still draw."""
        return tuple(name for name in self.asked if name not in self.unsafe_asked)


@dataclass(frozen=True)
class PromptSetResult:
    """The comparisons of one prompt set.

    Attributes:
        name: for example ``near-miss``; its key in the summary has underscores.
        kind: ``unsafe`` sets ask for the concept and count for removal, ``benign`` ones for
            retention.
        comparisons: one a prompt, in the set's order.
        description: one sentence for the reader about what the prompts are.
    """

    name: str
    kind: PromptSetKind
    comparisons: tuple[Comparison, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not self.comparisons:
            raise ValueError(f"prompt set {self.name!r} has no comparisons")
        for comparison in self.comparisons:
            if comparison.asked and (self.kind == "unsafe") != bool(comparison.unsafe_asked):
                raise ValueError(
                    f"prompt set {self.name!r} is {self.kind}, "
                    f"but {comparison.prompt_id} has unsafe_asked={comparison.unsafe_asked}"
                )

    @property
    def key(self) -> str:
        """Its key in the summary."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class BenignFeatures:
    """An image-text encoder's features, for the CLIP score and the Fréchet distance.

    Attributes:
        text: of benign prompts, float (N, D).
        original: of the original model's pictures of them, float (N, D).
        hardened: of the hardened model's pictures of them, float (N, D).
        real: of real held-out pictures, float (M, D).
        encoder: name of the encoder.
    """

    text: np.ndarray
    original: np.ndarray
    hardened: np.ndarray
    real: np.ndarray
    encoder: str


class LossRecord(Protocol):
    """What a training step reports; the edit's own records are such."""

    @property
    def step(self) -> int:
        """Steps done, from 1."""

    @property
    def loss(self) -> float:
        """Weighted sum of the two parts."""

    @property
    def redirect(self) -> float:
        """Loss of the unsafe half."""

    @property
    def preserve(self) -> float:
        """Loss of the benign half."""


@dataclass(frozen=True)
class RunFacts:
    """What was done, and with what.

    Attributes:
        model: the base model's name or hub id.
        patch: the patch's file name.
        concept: the word for what was removed, as it stands in a sentence ("weapons").
        detector: what flagged the pictures.
        edit_seconds: duration of the edit.
        total_seconds: duration of the whole run.
        settings: of the edit and of sampling; values may be nested mappings.
        versions: of the packages, by name.
        seeds: by what they seed.
        losses: the edit's records, in order.
        classifier: what decided which objects are drawn; its threshold is the one that counts.
    """

    model: str
    patch: str
    concept: str
    detector: DetectorIdentity
    edit_seconds: float
    total_seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, Any] = field(default_factory=dict)
    losses: Sequence[LossRecord] = ()
    classifier: DetectorIdentity | None = None

    @property
    def object_threshold(self) -> float:
        """Classifier score at or above which an object counts as drawn."""
        return self.classifier.threshold if self.classifier else THRESHOLD
