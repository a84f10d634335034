"""Stable Diffusion's safety checker: blacks out pictures that CLIP finds close to a concept."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo, own_checker, register
from safegen.defenses._exchange import exchange
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.safety_checker import CheckedImages, checker_folders, load_checker
from safegen.models.weights import content_hash, model_folder
from safegen.profiles import Profile


@dataclass(frozen=True)
class SafetyFilter(Defense):
    """Filter a pipeline's pictures with a safety checker, in the pipeline's own call.

    Attributes:
        source: folder or hub id of a checker (default: the model's own, or one made for it).
        profile: profile that can make a checker for the model.
        words: words that a made checker detects.
        shift: cosine added to the threshold of every concept; a negative one flags more.
        local_files_only: never ask the hub.
    """

    source: str = ""
    profile: Profile | None = None
    words: tuple[str, ...] = ()
    shift: float = 0.0
    local_files_only: bool = False

    changes = "output"

    @cached_property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        shift = {"shift": self.shift} if self.shift else {}
        return DefenseIdentity("safety-filter", {**self._checked_by, **shift})

    @property
    def _checked_by(self) -> dict[str, Any]:
        if self.source:
            parts = dict.fromkeys(checker_folders(self._folder))
            return {"content_hash": [content_hash(part) for part in parts]}
        if self.profile is not None:
            return {"source": self.profile.name, "words": list(self.words)}
        return {"source": "the model's own"}

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        checker, processor = self._checker(pipeline)
        return put_checker(pipeline, _shifted(checker, self.shift), processor)

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self.source, local_files_only=self.local_files_only)

    def _checker(self, pipeline: Any) -> tuple[Any, Any]:
        own = own_checker(pipeline)
        if own is not None and not self.source:
            return own, pipeline.feature_extractor
        checker, processor = self._other_checker()
        weight = next(denoiser_of(pipeline).parameters())
        return checker.to(weight.device, weight.dtype), processor

    def _other_checker(self) -> tuple[Any, Any]:
        if self.source:
            return load_checker(self._folder)
        if self.profile is not None and self.profile.safety_checker is not None:
            return self.profile.safety_checker(self.words)
        raise SafegenError(
            "safety-filter: the model came without a safety checker; name one: "
            "safety-filter:CompVis/stable-diffusion-safety-checker, or a folder"
        )


def _shifted(checker: Any, shift: float) -> Any:
    """Return a checker with all thresholds moved; the given one if they are not."""
    if not shift:
        return checker
    moved = copy.deepcopy(checker)  # the model's own stays as it is
    for thresholds in (moved.concept_embeds_weights, moved.special_care_embeds_weights):
        thresholds.data += shift
    return moved


def put_checker(pipeline: Any, checker: Any, processor: Any) -> Undo:
    """Run a checker on every picture of a pipeline; returns the function that removes it.

    Where the pipeline's call has no place for a checker, its image processor runs it.

    Raises:
        SafegenError: the pipeline has neither.
    """
    if hasattr(pipeline, "safety_checker"):
        return exchange(pipeline, {"safety_checker": checker, "feature_extractor": processor})
    if not hasattr(pipeline, "image_processor"):
        raise SafegenError(
            f"safety-filter: {type(pipeline).__name__} has no place for a safety checker; "
            "use a Stable Diffusion pipeline"
        )
    images = CheckedImages(pipeline.image_processor, checker, processor)
    return exchange(pipeline, {"image_processor": images})


@register("safety-filter")
def safety_filter(
    source: str = "",
    *,
    shift: float = 0.0,
    concept: Concept | None = None,
    profile: Profile | None = None,
    local_files_only: bool = False,
) -> SafetyFilter:
    """Safety checker of Stable Diffusion, or one that the model's profile makes."""
    wanted = concept or (profile and profile.concept)
    if source or not wanted or not profile or profile.safety_checker is None:
        return SafetyFilter(source, shift=shift, local_files_only=local_files_only)
    return SafetyFilter(profile=profile, words=wanted.words, shift=shift)
