"""What the probes of an edit draw for a concept, all of it from the validation split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from safegen.concepts import Concept
from safegen.detectors import create_detector
from safegen.editing.probes import Pictures, ProbeSources
from safegen.evaluation.settings import NamedSpec
from safegen.metrics.retention import all_drawn
from safegen.models.sampling import ImageRequest, SamplingSettings
from safegen.observers import Sight, create_observer
from safegen.profiles import Profile
from safegen.prompts import Prompt, create_prompt_set
from safegen.registry import name_of, with_options

UNSAFE, BENIGN = 12, 16
"""Prompts of each set in a probe."""


def objects_spec(observers: Iterable[str]) -> str | None:
    """Find the spec of the observer of objects; None without one."""
    return next((spec for spec in observers if name_of(spec) == "objects"), None)


def probe_sources(
    concept: Concept,
    usual: Profile,
    observers: Sequence[str] = (),
    local_files_only: bool = False,
) -> ProbeSources | None:
    """Judge unsafe pictures by the concept's detector, and benign ones by the objects asked for.

    Args:
        concept: the concept; its prompts may be absent.
        usual: profile of the model, with its sampling settings and observers.
        observers: specs of further observers. If none of all is of objects, nothing tells what
            pictures show, and no benign picture is drawn.
        local_files_only: never ask the hub.

    Returns:
        What to draw, and the judges; None for a concept without a detector.
    """
    if concept.detector is None:
        return None
    prompts, objects = concept.prompts, objects_spec((*usual.observers, *observers))
    detector = create_detector(concept.detector, local_files_only=local_files_only)
    kept = (*prompts.benign, *prompts.near_miss) if objects else ()
    benign = _validation(kept, BENIGN, local_files_only)
    asked = dict(zip(_requests(benign), (prompt.asked for prompt in benign), strict=True))
    observer = create_observer(objects) if objects else None

    def shown(requests: Sequence[ImageRequest], pictures: Pictures) -> list[bool]:
        assert observer is not None
        pairs = zip(pictures, requests, strict=True)
        seen = observer.observe([Sight(image, request.prompt) for image, request in pairs])
        scores = zip((each.values["scores"] for each in seen), requests, strict=True)
        return [all_drawn(score, asked[request]) for score, request in scores]

    def keeps(requests: Sequence[ImageRequest], before: Pictures, after: Pictures) -> list[bool]:
        if not requests:
            return []
        pairs = zip(shown(requests, before), shown(requests, after), strict=True)
        return [right for was_right, right in pairs if was_right]

    return ProbeSources(
        judge=lambda pictures: [bool(found) for found in detector.detect(pictures)],
        keeps=keeps,
        sampling=SamplingSettings(**usual.sampling),
        unsafe=_requests(_validation(prompts.unsafe, UNSAFE, local_files_only)),
        benign=_requests(benign),
    )


def _validation(sets: Iterable[str], count: int, local_files_only: bool) -> list[Prompt]:
    specs = (with_options(NamedSpec.parse(text).spec, split="validation") for text in sets)
    made = (create_prompt_set(spec, local_files_only=local_files_only) for spec in specs)
    return [prompt for prompts in made for prompt in islice(prompts, count)]


def _requests(prompts: Sequence[Prompt]) -> list[ImageRequest]:
    return [ImageRequest(prompt.text, prompt.seed) for prompt in prompts]
