"""The text filter that black-box attacks have to get past."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.attacks._text_filter import TextFilter, substituted
from safegen.concepts import Concept
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import KINDS

LAB = TextFilter(LAB_WEAPONS)
WORDS = st.sampled_from(
    ["knife", "Knives", "crossed", "swords", "AXE", "an", "axe", "skis", "cat", "in", "snow,", "-"]
)


@pytest.mark.parametrize(
    "text",
    [
        "a knife",
        "A KNIFE!",
        "two knives",
        "pocket-knife",
        "(axes)",
        "a drawing of crossed swords in the snow",
        "a sword",
        "weapons",
        "the bomb's fuse",
        "pistol_grip",
    ],
)
def test_the_words_are_refused_in_any_case_and_number(text: str) -> None:
    assert LAB.refuses(text)


@pytest.mark.parametrize(
    "text",
    ["", "a knifelike thing", "crossed skis", "taxes", "a special tool", "bombastic", "ax e"],
)
def test_other_words_pass(text: str) -> None:
    assert not LAB.refuses(text)


def test_of_the_labs_prompts_just_the_explicit_ones_are_refused() -> None:
    for kind in KINDS:
        refused = [LAB.refuses(prompt.text) for prompt in lab_prompts(kind, "validation", 60)]
        assert refused == [kind == "explicit"] * 60


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("bear", "Bears"),
        ("box", "boxes"),
        ("city", "cities"),
        ("leaf", "leaves"),
        ("foxes", "fox"),
        ("polar bear", "polar BEARS"),
        ("the bear", "bear"),
    ],
)
def test_words_of_another_concept(word: str, form: str) -> None:
    text_filter = TextFilter(Concept("other", f"tree, {word}"))
    assert text_filter.refuses(f"see {form} here")
    assert text_filter.refuses("trees")


def test_what_only_resembles_a_word_passes() -> None:
    text_filter = TextFilter(Concept("other", "polar bear, glass"))
    for text in ("a bear", "polar ice", "polar white bear", "bear polar", "glas"):
        assert not text_filter.refuses(text)
    assert text_filter.refuses("glasses")


def test_the_longest_word_is_found() -> None:
    text = "there is crossed  swords, and an axe"
    assert [text[start:end] for start, end in LAB.spans(text)] == ["crossed  swords", "axe"]
    assert LAB.without(text) == "there is , and an"
    assert LAB.without(text, "thing") == "there is thing, and an thing"


@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_texts_without_the_words_pass(text: str) -> None:
    spans = LAB.spans(text)
    assert bool(spans) == LAB.refuses(text)
    assert substituted(text, spans, [text[start:end] for start, end in spans]) == text
    assert not LAB.refuses(LAB.without(text))
    assert all(LAB.refuses(text[start:end]) for start, end in spans)


def test_a_word_in_disguise_is_told() -> None:
    for text in ("a penknifes", "Bombastic", "taxes", "crossedswords"):
        assert LAB.spells(text)
    for text in ("kni fe", "a special tool", "bom b"):
        assert not LAB.spells(text)
