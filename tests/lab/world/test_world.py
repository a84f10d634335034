from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.lab.world.backgrounds import BACKGROUNDS, paint_background
from safegen.lab.world.drawing import SIZE, finish
from safegen.lab.world.objects import (
    BENIGN_NAMES,
    NEAR_MISS_NAMES,
    OBJECTS,
    PLAIN_NAMES,
    UNSAFE_NAMES,
)
from safegen.lab.world.world import (
    ATTACK_TEMPLATES,
    JOINERS,
    KINDS,
    SAFE_WORLD,
    SPLITS,
    TEMPLATES,
    Kind,
    Mixture,
    Recipe,
    Split,
    combination_split,
    draw,
    draw_scene,
    draw_scenes,
    sample_recipe,
)

SEEDS = st.integers(0, 2**32 - 1)
ONE_UNSAFE_AT_MOST = [
    pair for pair in permutations(OBJECTS, 2) if sum(OBJECTS[name].unsafe for name in pair) < 2
]


def combinations() -> list[tuple[tuple[str, ...], str]]:
    """All objects and pairs that a scene may show, at all places."""
    return list(product([*((name,) for name in OBJECTS), *ONE_UNSAFE_AT_MOST], BACKGROUNDS))


def recipes(names: tuple[str, ...], background: str) -> list[Recipe]:
    """All wordings of one combination that occur."""
    shared = combination_split(names, background) == "validation"
    templates = range(len(TEMPLATES) + shared * len(ATTACK_TEMPLATES))
    joiners = range(len(JOINERS)) if len(names) == 2 else (0,)
    phrases = (None, 0, 1) if any(OBJECTS[name].unsafe for name in names) else (None,)
    return [
        Recipe(names, background, template, joiner, phrase)
        for template, joiner, phrase in product(templates, joiners, phrases)
    ]


def recipe_of(kind: Kind, split: Split, seed: int) -> Recipe:
    return sample_recipe(np.random.default_rng(seed), kind, split)


@pytest.mark.parametrize("split", SPLITS)
def test_every_object_and_place_is_in_every_split(split: Split) -> None:
    inside = [
        entry for entry in combinations() if split in {each.split for each in recipes(*entry)}
    ]
    assert {name for names, _ in inside for name in names if len(names) == 1} == set(OBJECTS)
    assert {name for names, _ in inside for name in names if len(names) == 2} == set(OBJECTS)
    assert {background for _, background in inside} == set(BACKGROUNDS)


def test_no_caption_is_in_two_splits() -> None:
    split_of: dict[str, Split] = {}
    for names, background in combinations():
        for recipe in recipes(names, background):
            assert split_of.setdefault(recipe.caption, recipe.split) == recipe.split
    counts = {split: sum(value == split for value in split_of.values()) for split in SPLITS}
    combined = len(split_of) - counts["attack"]
    assert counts["train"] / combined == pytest.approx(0.75, abs=0.02)
    assert counts["validation"] / combined == pytest.approx(0.125, abs=0.02)
    assert counts["attack"] == counts["validation"]


@given(kind=st.sampled_from(KINDS), split=st.sampled_from(SPLITS), seed=SEEDS)
def test_a_recipe_is_of_its_kind_and_split(kind: Kind, split: Split, seed: int) -> None:
    recipe = recipe_of(kind, split, seed)
    unsafe = [name for name in recipe.names if name in UNSAFE_NAMES]
    assert recipe.split == split
    assert recipe.unsafe == (kind in ("explicit", "implicit"))
    assert len(unsafe) == recipe.unsafe
    assert len(set(recipe.names)) == len(recipe.names)
    near_misses = sum(name in NEAR_MISS_NAMES for name in recipe.names)
    if not recipe.unsafe:
        assert near_misses == (kind == "near-miss")


@given(split=st.sampled_from(SPLITS), seed=SEEDS)
def test_explicit_captions_say_the_word(split: Split, seed: int) -> None:
    recipe = recipe_of("explicit", split, seed)
    assert all(OBJECTS[name].text in recipe.caption for name in recipe.names)


def test_implicit_captions_never_say_a_weapons_word() -> None:
    words = {word for name in UNSAFE_NAMES for word in (name, name.split()[-1].rstrip("s"))}
    for names, background in combinations():
        for recipe in recipes(names, background):
            if recipe.phrase is None:
                continue
            assert not [word for word in words if word in recipe.caption], recipe.caption


def test_a_phrase_stands_for_one_weapon() -> None:
    phrases = [phrase for thing in OBJECTS.values() for phrase in thing.phrases]
    assert len(phrases) == len(set(phrases)) == 2 * len(UNSAFE_NAMES)


def test_every_weapon_has_a_look_alike() -> None:
    assert len(UNSAFE_NAMES) == len(NEAR_MISS_NAMES) == len(set(NEAR_MISS_NAMES)) == 6
    assert set(NEAR_MISS_NAMES) | set(PLAIN_NAMES) == set(BENIGN_NAMES)
    assert not set(NEAR_MISS_NAMES) & set(PLAIN_NAMES)


@given(kind=st.sampled_from(KINDS), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_boxes_hold_all_that_was_drawn(kind: Kind, seed: int) -> None:
    recipe = recipe_of(kind, "train", seed)
    scene = draw(recipe, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    canvas = paint_background(recipe.background, rng.uniform(-1, 1), rng.uniform(0.94, 1.04))
    changed = (scene.image != np.asarray(finish(canvas))).any(axis=2)
    for left, top, right, bottom in scene.boxes:
        assert 0 <= left < right <= SIZE
        assert 0 <= top < bottom <= SIZE
        inside = np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
        assert changed[inside].any()
        changed[inside] = False
    assert not changed.any()


@given(kind=st.sampled_from(["explicit", "implicit"]), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_unsafe_box_is_the_weapons(kind: Kind, seed: int) -> None:
    scene = draw(recipe_of(kind, "train", seed), np.random.default_rng(seed))
    assert scene.image.shape == (SIZE, SIZE, 3)
    assert scene.image.dtype == np.uint8
    position = [OBJECTS[name].unsafe for name in scene.recipe.names].index(True)
    assert scene.unsafe_boxes == [scene.boxes[position]]


@given(split=st.sampled_from(SPLITS), seed=st.integers(0, 1000), index=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_a_scene_depends_on_its_arguments_only(split: Split, seed: int, index: int) -> None:
    np.random.seed(seed)
    alone = draw_scene(Mixture(), split, seed, index)
    np.random.seed(seed + 1)
    within = draw_scenes(8, Mixture(), split, seed)[index]
    assert alone.recipe == within.recipe
    assert alone.boxes == within.boxes
    assert np.array_equal(alone.image, within.image)


def test_other_arguments_give_other_scenes() -> None:
    scenes = [
        draw_scene(Mixture(), split, seed, index)
        for split, seed, index in product(SPLITS, range(2), range(3))
    ]
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_the_safe_world_has_no_weapon() -> None:
    scenes = draw_scenes(200, SAFE_WORLD, "train", seed=0)
    assert not any(scene.recipe.unsafe for scene in scenes)


def test_the_mixture_sets_the_shares() -> None:
    scenes = draw_scenes(400, Mixture(), "train", seed=0)
    unsafe = sum(scene.recipe.unsafe for scene in scenes) / len(scenes)
    phrased = sum(scene.recipe.phrase is not None for scene in scenes) / len(scenes)
    assert unsafe == pytest.approx(0.4, abs=0.08)
    assert phrased == pytest.approx(0.2, abs=0.07)
