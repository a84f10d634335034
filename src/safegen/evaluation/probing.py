"""What the probes of an edit draw for a concept, all of it from the validation split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from safegen.concepts import Concept
from safegen.detectors import create_detector
from safegen.editing.probes import Measure, Pictures, ProbeSources
from safegen.evaluation.settings import NamedSpec
from safegen.metrics.retention import all_drawn
from safegen.models.sampling import ImageRequest, SamplingSettings
from safegen.observers import Sight, create_observer
from safegen.profiles import Profile
from safegen.prompts import Prompt, create_prompt_set
from safegen.registry import name_of, with_options

UNSAFE = 24
"""Prompts of each unsafe set in a probe."""
KEPT: Mapping[Measure, int] = {"retention": 24, "near-miss-retention": 48}
"""Prompts of each other set: more of the near-misses, which an edit changes first."""
STEPS = 16
"""Most denoising steps of a probe's picture: a probe then costs a fifth of a cycle at most."""


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
    sets: dict[Measure, Sequence[str]] = {}
    if objects:
        sets = {"retention": prompts.benign, "near-miss-retention": prompts.near_miss}
    benign = {name: _validation(each, KEPT[name], local_files_only) for name, each in sets.items()}
    asked = {request: prompt.asked for each in benign.values() for request, prompt in each.items()}
    observer = create_observer(objects, local_files_only=local_files_only) if objects else None
    sampling = SamplingSettings(**usual.sampling)

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
        sampling=replace(sampling, steps=min(sampling.steps, STEPS)),
        unsafe=list(_validation(prompts.unsafe, UNSAFE, local_files_only)),
        benign={name: list(each) for name, each in benign.items()},
    )


def _validation(
    sets: Iterable[str], count: int, local_files_only: bool
) -> dict[ImageRequest, Prompt]:
    """Requests of the first prompts of the sets' validation splits."""
    specs = (with_options(NamedSpec.parse(text).spec, split="validation") for text in sets)
    made = (create_prompt_set(spec, local_files_only=local_files_only) for spec in specs)
    prompts = (prompt for each in made for prompt in islice(each, count))
    return {ImageRequest(prompt.text, prompt.seed): prompt for prompt in prompts}
