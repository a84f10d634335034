"""Concepts as data: the shipped ones, those of other packages, and a user's own file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from safegen.concepts import CONCEPTS, ConceptPrompts, load_concept
from safegen.detectors import create_detector
from safegen.detectors.nudenet import EXPOSED
from safegen.errors import SafegenError
from safegen.evaluation.settings import NamedSpec
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.prompts import create_prompt_set
from safegen.registry import with_options

OWN = """
name: hats
text: hat, cap
detector: onnx:hats.json,threshold=0.4
prompts:
  unsafe: ["hats=own:hats.txt"]
"""
LAB_OWN = ("animals", "food", "vehicles")


def test_a_users_file_is_a_peer_of_the_shipped(
    tmp_path: Path, installed: Callable[..., Any]
) -> None:
    file = tmp_path / "hats.yaml"
    file.write_text(OWN)
    own = load_concept(str(file))
    assert (own.name, own.words, own.censoring) == ("hats", ("hat", "cap"), "pixelate")
    assert own.prompts == ConceptPrompts(unsafe=("hats=own:hats.txt",))
    assert {"nudity", "weapons", *LAB_OWN} <= set(CONCEPTS.names())
    code = f"from pathlib import Path\nHATS = Path({str(file)!r})\n"
    entries = "[safegen.concepts]\nhats = more_hats:HATS\ncaps = more_hats:HATS\n"
    with installed("more_hats", code, entries):
        assert load_concept("hats") == own
        with pytest.raises(SafegenError, match="'caps' is named 'hats'"):
            load_concept("caps")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nlabels: [a]", r"x\.yaml: unknown key 'labels'; known: name, text"),
        ("name: x\ndetectr: lab", r"x\.yaml: unknown key 'detectr'; did you mean 'detector'\?"),
        ("name: x\nobjects: cat", r"x\.yaml: objects must be a list of texts, not 'cat'"),
        ("name: 3", r"x\.yaml: name must be a text, not 3"),
        ("text: x", r"x\.yaml: the key name is missing; write name"),
        ("name: x\nprompts: {unsafe: 3}", r"x\.yaml: prompts: unsafe must be a list of texts"),
        ("name: x\nprompts: {safe: []}", r"x\.yaml: prompts: unknown key 'safe'"),
        ("- x", r"x\.yaml: must be a mapping with keys among name"),
        ("name: [", r"x\.yaml: cannot be read as YAML"),
        (None, r"x\.yaml: cannot be read as YAML"),
    ],
)
def test_a_file_that_is_none_is_told_in_a_line(
    content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(SafegenError, match=message):
        load_concept(str(tmp_path / "x.yaml"))


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(SafegenError, match="Did you mean 'nudity'"):
        load_concept("nudety")


def test_nudity_counts_what_nudenet_calls_exposed_and_ships_no_prompt() -> None:
    nudity = load_concept("nudity")
    assert nudity.detector == "nudenet,labels=" + "+".join(EXPOSED)
    assert nudity.prompts == ConceptPrompts()


@pytest.mark.parametrize("name", LAB_OWN)
def test_the_labs_concepts_have_prompts_of_disjoint_splits(name: str) -> None:
    concept = load_concept(name)
    detector = create_detector(str(concept.detector))
    assert detector.identity.labels == concept.objects
    assert not {*concept.objects, *concept.near_misses} & {*UNSAFE_NAMES}
    roles = concept.prompts
    for spec in (*roles.unsafe, *roles.benign, *roles.near_miss):
        parts = []
        for split in ("train", "validation", "held-out"):
            chosen = with_options(NamedSpec.parse(spec).spec, split=split, count=64)
            prompts = list(create_prompt_set(chosen))
            for prompt in prompts:
                assert (spec in roles.unsafe) == bool({*prompt.asked} & {*concept.objects})
                assert not {*prompt.asked} & {*UNSAFE_NAMES}
                assert {*prompt.asked} <= {*OBJECTS}
            parts.append({prompt.text for prompt in prompts})
        assert not any(one & other for one, other in combinations(parts, 2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lab:implicit,concept=food", "the lab has no implicit prompts of food"),
        ("lab:sneakyprompt-n,concept=food", "is of weapons only"),
        ("lab:explicit,concept=nudity", "the lab needs objects and near_misses among knife"),
    ],
)
def test_what_the_lab_cannot_draw_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        list(create_prompt_set(spec))
