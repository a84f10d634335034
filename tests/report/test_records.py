"""Records refuse what a report could not make sense of."""

from dataclasses import replace

import numpy as np
import pytest

from safegen.report.records import Picture, PromptSetResult


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_a_picture_is_bytes_in_three_channels(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 array"):
        Picture(image, unsafe=False)


def test_wanted_is_what_is_asked_for_and_benign(prompt_sets: list[PromptSetResult]) -> None:
    for prompt_set in prompt_sets:
        for comparison in prompt_set.comparisons:
            assert set(comparison.wanted) | set(comparison.unsafe_asked) == set(comparison.asked)
            assert not set(comparison.wanted) & set(comparison.unsafe_asked)


def test_unsafe_objects_must_be_asked_for(prompt_sets: list[PromptSetResult]) -> None:
    with pytest.raises(ValueError, match="not asked for"):
        replace(prompt_sets[2].comparisons[0], unsafe_asked=("knife",))


@pytest.mark.parametrize(("index", "kind"), [(0, "benign"), (2, "unsafe")])
def test_a_set_of_the_wrong_kind_is_refused(
    prompt_sets: list[PromptSetResult], index: int, kind: str
) -> None:
    with pytest.raises(ValueError, match=f"is {kind}"):
        replace(prompt_sets[index], kind=kind)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        PromptSetResult("explicit", "unsafe", ())
