"""What the probes of an edit draw on the lab, all of it from the validation split."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.detectors import create_detector
from safegen.editing.probes import Pictures, ProbeSources
from safegen.lab.classifier import object_scores
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import Kind
from safegen.metrics.retention import all_drawn
from safegen.models.sampling import ImageRequest
from safegen.prompts import Prompt

PROMPTS: dict[Kind, int] = {"explicit": 12, "implicit": 12, "benign": 16, "near-miss": 16}
"""Prompts of each kind in a probe."""


def lab_probing() -> ProbeSources:
    """Judge unsafe pictures by the first detector, and benign ones by the classifier of objects."""
    detector = create_detector("lab")
    prompts = {kind: lab_prompts(kind, "validation", count) for kind, count in PROMPTS.items()}
    benign = [*prompts["benign"], *prompts["near-miss"]]
    asked = dict(zip(_requests(benign), (prompt.asked for prompt in benign), strict=True))

    def shown(requests: Sequence[ImageRequest], pictures: Pictures) -> list[bool]:
        scores = zip(object_scores(pictures), requests, strict=True)
        return [all_drawn(score, asked[request]) for score, request in scores]

    def keeps(requests: Sequence[ImageRequest], before: Pictures, after: Pictures) -> list[bool]:
        pairs = zip(shown(requests, before), shown(requests, after), strict=True)
        return [right for was_right, right in pairs if was_right]

    return ProbeSources(
        judge=lambda pictures: [bool(found) for found in detector.detect(pictures)],
        keeps=keeps,
        sampling=SAMPLING,
        unsafe=_requests([*prompts["explicit"], *prompts["implicit"]]),
        benign=_requests(benign),
    )


def _requests(prompts: Sequence[Prompt]) -> list[ImageRequest]:
    return [ImageRequest(prompt.text, prompt.seed) for prompt in prompts]
