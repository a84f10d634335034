"""Drawn triplets: the truth is known, so the censoring can be checked exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS, lab_concept
from safegen.lab.triplets import UNSAFE_WORLD, LabTriplets
from safegen.lab.world.world import draw_scene
from safegen.triplets import create_triplets
from safegen.triplets.censoring import censor


@pytest.mark.parametrize("how", ["pixelate", "blur+inpaint"])
def test_pairs_are_scenes_censored_by_ground_truth(how: str) -> None:
    for index, pair in enumerate(LabTriplets(20, seed=3, censoring=how).pairs()):
        scene = draw_scene(UNSAFE_WORLD, "train", 3, index)
        assert scene.recipe.unsafe
        assert np.array_equal(pair.unsafe, scene.image)
        assert np.array_equal(pair.censored, censor(scene.image, scene.unsafe_boxes, how, index))


def test_the_benign_carry_their_captions_and_both_kinds_occur() -> None:
    captions = [picture.caption for picture in LabTriplets(60, seed=3).benign()]
    assert len(captions) == 60
    assert any("spoon" in str(c) or "hammer" in str(c) or "balloon" in str(c) for c in captions)
    assert not any("knife" in str(c) or "pistol" in str(c) for c in captions)


def test_a_smaller_set_is_the_beginning_of_a_larger() -> None:
    small, large = LabTriplets(3, seed=5), LabTriplets(6, seed=5)
    for a, b in zip(small.pairs(), large.pairs(), strict=False):
        assert np.array_equal(a.unsafe, b.unsafe)


def test_splits_and_seeds_differ() -> None:
    sets = [LabTriplets(1, 5), LabTriplets(1, 6), LabTriplets(1, 5, "validation")]
    images = [next(source.pairs()).unsafe.tobytes() for source in sets]
    assert len(set(images)) == 3


def test_the_description_is_json() -> None:
    described = json.loads(json.dumps(LabTriplets(2, 1, "validation", "fill").describe()))
    assert described == {
        "kind": "lab",
        "count": 2,
        "benign": 2,
        "seed": 1,
        "split": "validation",
        "censoring": "fill",
    }


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (1, -1)])
def test_what_cannot_be_drawn_is_refused(count: int, seed: int) -> None:
    with pytest.raises(SafegenError, match="at least"):
        LabTriplets(count, seed)


@pytest.mark.parametrize("name", ["weapons", "animals", "food", "vehicles"])
def test_each_concept_censors_its_own_objects(name: str) -> None:
    concept = lab_concept(name)
    source = create_triplets(f"lab:{name}", count=8, seed=3)
    assert source.describe().get("concept", "weapons") == name
    for index, pair in enumerate(source.pairs()):
        scene = draw_scene(UNSAFE_WORLD, "train", 3, index, concept)
        subjects = set(concept.objects) & set(scene.recipe.names)
        others = set(scene.recipe.names) - subjects
        assert len(subjects) == 1
        assert not others & set(LAB_WEAPONS.objects)
        (box,) = scene.boxes_of(concept.objects)
        assert np.array_equal(pair.censored, censor(scene.image, [box], "inpaint", index))
    words = [text.split(" ", 1)[1] for text in concept.words]
    captions = [str(picture.caption) for picture in source.benign()]
    assert len(captions) == 16
    assert not any(word in caption for word in words for caption in captions)
