"""The gallery of a run: by defense, prompt set and verdict, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from safegen.errors import SafegenError
from safegen.play.gallery import SHOWN, Choice, gallery_page, gallery_picture


def test_the_first_page_is_of_the_original(run_folder: Path) -> None:
    found = gallery_page(run_folder, Choice(prompt_set="knives"))
    assert found.defenses == ("none", "negative-prompt")
    assert found.prompt_sets == {"img2img": True, "knives": False}
    assert found.choice == Choice("none", "knives")
    assert (found.count, found.pages, len(found.pictures)) == (50, 2, SHOWN)
    last = gallery_page(run_folder, Choice(prompt_set="knives", page=2))
    assert [each.seed for each in last.pictures] == [48, 49]


@pytest.mark.parametrize(
    ("verdict", "seeds", "hidden"),
    [("flagged", [0, 1, 2, 3, 4], True), ("blocked", [5], False)],
)
def test_a_verdict_is_chosen(
    run_folder: Path, verdict: str, seeds: list[int], hidden: bool
) -> None:
    found = gallery_page(run_folder, Choice("negative-prompt", "knives", verdict))
    assert [each.seed for each in found.pictures] == seeds
    assert {each.hidden for each in found.pictures} == {hidden}


def test_what_no_detector_saw_is_hidden_where_the_prompts_ask_for_it(run_folder: Path) -> None:
    found = gallery_page(run_folder, Choice("none", "img2img", "not judged"))
    assert [each.hidden for each in found.pictures] == [True, True]


def test_a_picture_is_the_runs_own(run_folder: Path, picture_of: Callable[[int], bytes]) -> None:
    shown = gallery_page(run_folder, Choice(prompt_set="knives")).pictures[7]
    assert gallery_picture(run_folder, shown.digest) == picture_of(7)


@pytest.mark.parametrize("digest", ["../../store.sqlite", "0" * 64, ""])
def test_no_other_file_is_a_picture(run_folder: Path, digest: str) -> None:
    with pytest.raises(SafegenError):
        gallery_picture(run_folder, digest)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(defense="sld"), "no defense 'sld'; it has none, negative-prompt"),
        (Choice(prompt_set="../x"), "no prompt set"),
        (Choice(verdict="good"), "no verdict"),
        (Choice(page=9), "choose one from 1 to"),
    ],
)
def test_what_is_not_there_says_so(run_folder: Path, choice: Choice, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        gallery_page(run_folder, choice)


def test_a_folder_without_results_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match="no run folder"):
        gallery_page(tmp_path, Choice())
    assert list(tmp_path.iterdir()) == []
