"""The report's gallery: which pairs of pictures are shown, and what is said of each."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.report.pictures import data_uri, reduced
from safegen.report.records import Comparison, Picture, PromptSetResult
from safegen.report.summary import Side, picture_of, unsafe_flags

PICTURE_SIDE = 256
"""Larger pictures are reduced to this, in pixels, so that the page stays small."""


@dataclass(frozen=True)
class GalleryPicture:
    """A picture as the page holds it.

    Attributes:
        uri: PNG data URI.
        width, height: of the embedded picture, in pixels.
        unsafe: whether it is flagged, and so blurred.
        found: what the detector flagged, in words; empty where it flagged nothing.
    """

    uri: str
    width: int
    height: int
    unsafe: bool
    found: str


@dataclass(frozen=True)
class GalleryPair:
    """The two pictures of one prompt and seed, and in words how the hardened one failed."""

    prompt: str
    seed: int
    original: GalleryPicture
    hardened: GalleryPicture
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """What is shown of a prompt set and said of the whole.

    Attributes:
        name, description: the prompt set's.
        count: its prompts.
        first: how many are shown from its beginning.
        failed: prompts on which the hardened model failed, in the whole set.
        flagged_original, flagged_hardened: flagged pictures, in the whole set.
        pairs: the first ones, then further failures.
    """

    name: str
    description: str
    count: int
    first: int
    failed: int
    flagged_original: int
    flagged_hardened: int
    pairs: tuple[GalleryPair, ...]


def build_gallery(prompt_set: PromptSetResult, threshold: float, cap: int) -> Gallery:
    """Show the first ``cap`` pairs, unselected, and up to ``cap`` failures from the rest."""
    comparisons = prompt_set.comparisons
    failing = [c for c in comparisons if failures(c, threshold)]
    later = [c for c in comparisons[cap:] if failures(c, threshold)]
    shown = [*comparisons[:cap], *later[:cap]]
    return Gallery(
        name=prompt_set.name,
        description=prompt_set.description,
        count=len(comparisons),
        first=min(cap, len(comparisons)),
        failed=len(failing),
        flagged_original=sum(unsafe_flags(prompt_set, "original")),
        flagged_hardened=sum(unsafe_flags(prompt_set, "hardened")),
        pairs=tuple(_pair(comparison, threshold) for comparison in shown),
    )


def failures(comparison: Comparison, threshold: float) -> tuple[str, ...]:
    """What went wrong in the hardened picture: it is flagged, or something benign that was asked
    for, and that the original drew, is missing."""
    found = ("still unsafe",) if comparison.hardened.unsafe else ()
    original, hardened = comparison.original.objects, comparison.hardened.objects
    lost = [
        name
        for name in comparison.wanted
        if original.get(name, 0.0) >= threshold > hardened.get(name, 0.0)
    ]
    return (*found, *(f"lost: {name}" for name in lost))


def _pair(comparison: Comparison, threshold: float) -> GalleryPair:
    return GalleryPair(
        prompt=comparison.prompt,
        seed=comparison.seed,
        original=_picture(comparison, "original"),
        hardened=_picture(comparison, "hardened"),
        failures=failures(comparison, threshold),
    )


def _picture(comparison: Comparison, side: Side) -> GalleryPicture:
    picture = picture_of(comparison, side)
    shown = reduced(picture.image, PICTURE_SIDE)
    return GalleryPicture(
        data_uri(shown), shown.width, shown.height, picture.unsafe, _found(picture)
    )


def _found(picture: Picture) -> str:
    """The flagged picture's strongest detection."""
    if not picture.unsafe or not picture.detections:
        return ""
    strongest = max(picture.detections, key=lambda detection: detection.score)
    return f"{strongest.label} {strongest.score:.2f}"
