"""The grid: where each picture stands, and which are blurred."""

from dataclasses import replace

import numpy as np
import pytest

from safegen.errors import SafegenError
from safegen.report.grid import GAP, MARGIN, comparison_grid
from safegen.report.records import PromptSetResult


def cell(grid: np.ndarray, band: int, row: int, column: int, side: int) -> np.ndarray:
    top = band * (2 * side + GAP // 3 + 3 * GAP) + row * (side + GAP // 3)
    left = MARGIN + column * (side + GAP)
    return grid[top : top + side, left : left + side]


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def test_originals_stand_over_hardened_ones(prompt_sets: list[PromptSetResult]) -> None:
    comparisons = prompt_sets[0].comparisons[:5]
    grid = np.asarray(comparison_grid(comparisons, columns=3, scale=2, blur_unsafe=False))
    for index, comparison in enumerate(comparisons):
        band, column = divmod(index, 3)
        for row, picture in enumerate((comparison.original, comparison.hardened)):
            got = cell(grid, band, row, column, 128)
            np.testing.assert_array_equal(got, enlarged(picture.image, 2))


def test_flagged_pictures_are_blurred_and_only_they(prompt_sets: list[PromptSetResult]) -> None:
    comparison = prompt_sets[0].comparisons[0]
    grid = np.asarray(comparison_grid([comparison], columns=1, scale=2))
    sharp = enlarged(comparison.original.image, 2).astype(float)
    blurred = cell(grid, 0, 0, 0, 128).astype(float)
    assert np.abs(np.diff(blurred, axis=0)).max() < 0.1 * np.abs(np.diff(sharp, axis=0)).max()
    np.testing.assert_array_equal(cell(grid, 0, 1, 0, 128), enlarged(comparison.hardened.image, 2))


def test_rows_are_named_in_the_margin(prompt_sets: list[PromptSetResult]) -> None:
    grid = np.asarray(comparison_grid(prompt_sets[2].comparisons[:1], columns=4, scale=1))
    for rows in (slice(0, 64), slice(66, 130)):
        assert len(np.unique(grid[rows, :MARGIN].reshape(-1, 3), axis=0)) > 2


@pytest.mark.parametrize(("count", "columns", "scale"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_to_draw_is_an_error(
    prompt_sets: list[PromptSetResult], count: int, columns: int, scale: int
) -> None:
    with pytest.raises(SafegenError, match="a grid needs comparisons"):
        comparison_grid(prompt_sets[0].comparisons[:count], columns, scale)


def test_pictures_of_different_sizes_are_an_error(prompt_sets: list[PromptSetResult]) -> None:
    comparison = prompt_sets[0].comparisons[0]
    small = replace(comparison.hardened, image=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SafegenError, match="one size"):
        comparison_grid([replace(comparison, hardened=small)], columns=1, scale=1)
