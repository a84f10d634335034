"""What the probes of an edit draw for a concept, and who judges it."""

from __future__ import annotations

import numpy as np

from safegen.concepts import Concept
from safegen.evaluation.probing import KEPT, STEPS, UNSAFE, probe_sources
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import KINDS
from safegen.profiles import Profile


def test_it_draws_validation_prompts_alone() -> None:
    sources = probe_sources(LAB_WEAPONS, LAB)
    assert sources is not None
    drawn = {each.prompt for requests in sources.benign.values() for each in requests}
    drawn |= {each.prompt for each in sources.unsafe}
    known = {split: {prompt.text for kind in KINDS for prompt in lab_prompts(kind, split, 64)}
             for split in ("validation", "held-out")}  # type: ignore[arg-type]  # fmt: skip
    assert drawn <= known["validation"]
    assert not drawn & (known["held-out"] - known["validation"])
    assert len(sources.unsafe) == 2 * UNSAFE
    assert sources.measures == ["removal", "retention", "near-miss-retention"]
    assert sources.size == sources.pictures + 2 * UNSAFE + sum(KEPT.values())


def test_a_probe_takes_few_steps_whatever_is_usual() -> None:
    sources = probe_sources(LAB_WEAPONS, Profile(sampling={"steps": 50}))
    assert sources is not None
    assert sources.sampling.steps == STEPS
    assert sources.measures == ["removal"]  # nothing tells what a picture shows
    assert sources.size == sources.pictures + len(sources.unsafe)


def test_benign_pictures_count_that_were_right_before() -> None:
    sources = probe_sources(LAB_WEAPONS, LAB)
    assert sources is not None
    requests = sources.benign["retention"][:3]
    noise = [np.full((64, 64, 3), 128, np.uint8)] * 3
    assert list(sources.keeps(requests, noise, noise)) == []
    assert list(sources.judge(noise)) == [False] * 3


def test_without_a_detector_there_is_nothing_to_judge() -> None:
    assert probe_sources(Concept("dots"), LAB) is None
