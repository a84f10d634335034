"""Stable Diffusion's safety checker: blacks out pictures that CLIP finds close to a concept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo, own_checker, register
from safegen.defenses._exchange import exchange
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.safety_checker import FALSE_ALARMS, lab_checker
from safegen.models.anatomy import denoiser_of
from safegen.models.loading import is_lab
from safegen.models.safety_checker import checker_folders, load_checker
from safegen.models.weights import content_hash, model_folder


@dataclass(frozen=True)
class SafetyFilter(Defense):
    """Filters a pipeline's pictures through a safety checker, by the pipeline's own call.

    Attributes:
        source: folder or hub id of a checker; if empty the one that the model came with, and
            for the lab one made of its CLIP.
        words: what the lab's checker looks for.
        false_alarms: share of safe training scenes that the lab's checker may flag.
        local_files_only: never ask the hub.
    """

    source: str = ""
    words: tuple[str, ...] = LAB_WEAPONS.words
    false_alarms: float = FALSE_ALARMS
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.false_alarms < 1:
            raise SafegenError(f"false alarms are a share in [0, 1), not {self.false_alarms:g}")

    @cached_property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        if self.source:
            parts = dict.fromkeys(checker_folders(self._folder))
            hashes = [content_hash(part) for part in parts]
            return DefenseIdentity("safety-filter", {"content_hash": hashes})
        return DefenseIdentity(
            "safety-filter",
            {
                "source": "the model's own",
                "words": list(self.words),
                "false_alarms": self.false_alarms,
            },
        )

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        return put_checker(pipeline, *self._checker(pipeline))

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self.source, local_files_only=self.local_files_only)

    def _checker(self, pipeline: Any) -> tuple[Any, Any]:
        own = own_checker(pipeline)
        if own is not None and not self.source:
            return own, pipeline.feature_extractor
        checker, processor = self._other_checker(pipeline)
        weight = next(denoiser_of(pipeline).parameters())
        return checker.to(weight.device, weight.dtype), processor

    def _other_checker(self, pipeline: Any) -> tuple[Any, Any]:
        if self.source:
            return load_checker(self._folder)
        if is_lab(pipeline):
            return lab_checker(self.words, self.false_alarms)
        raise SafegenError(
            "safety-filter: the model came without a safety checker; name one: "
            "safety-filter:CompVis/stable-diffusion-safety-checker, or a folder"
        )


def put_checker(pipeline: Any, checker: Any, processor: Any) -> Undo:
    """Have a pipeline run a checker on every picture; returns what takes it out again.

    Raises:
        SafegenError: the pipeline has no place for a checker.
    """
    if not hasattr(pipeline, "safety_checker"):
        raise SafegenError(
            f"safety-filter: {type(pipeline).__name__} has no safety checker of its own call; "
            "use a Stable Diffusion 1.x or 2.x pipeline"
        )
    return exchange(pipeline, {"safety_checker": checker, "feature_extractor": processor})


@register("safety-filter")
def safety_filter(
    source: str = "", *, concept: Concept = LAB_WEAPONS, local_files_only: bool = False
) -> SafetyFilter:
    """The safety checker of Stable Diffusion; of the lab's CLIP for the lab."""
    return SafetyFilter(source, concept.words, local_files_only=local_files_only)
