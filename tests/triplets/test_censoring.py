"""Laws of censoring: what is outside stays, what is inside loses its detail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.triplets.censoring import METHODS, Box, blur, censor, censor_mask, fill, pixelate

KINDS = (*METHODS, "+".join(METHODS))
HEIGHT, WIDTH = 24, 40


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, right = sorted(draw(st.lists(st.integers(-5, WIDTH + 5), min_size=2, max_size=2)))
    top, bottom = sorted(draw(st.lists(st.integers(-5, HEIGHT + 5), min_size=2, max_size=2)))
    return (left, top, right, bottom)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def inside(regions: list[Box]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in regions:
        mask[max(0, int(top)) : max(0, int(bottom)), max(0, int(left)) : max(0, int(right))] = True
    return mask


@given(st.lists(boxes(), max_size=3), st.sampled_from(KINDS))
def test_nothing_outside_the_boxes_changes(regions: list[Box], how: str) -> None:
    image = picture()
    censored = censor(image, regions, how)
    outside = ~inside(regions)
    assert censored.dtype == np.uint8
    assert np.array_equal(censored[outside], image[outside])
    assert np.array_equal(image, picture())


@given(st.integers(0, 99), st.sampled_from(KINDS), st.floats(0.02, 0.98))
def test_nothing_outside_a_mask_changes(seed: int, how: str, share: float) -> None:
    image = picture()
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < share
    censored = censor_mask(image, mask, how)
    assert np.array_equal(censored[~mask], image[~mask])


@given(boxes(), st.sampled_from(KINDS))
def test_a_rectangular_mask_is_its_box(box: Box, how: str) -> None:
    image = picture()
    assert np.array_equal(censor_mask(image, inside([box]), how), censor(image, [box], how))


@pytest.mark.parametrize("how", KINDS)
def test_detail_inside_is_lost(how: str) -> None:
    image = picture()
    region = censor(image, [(4, 4, 36, 20)], how)[4:20, 4:36].astype(float)
    assert region.std() < 0.5 * image[4:20, 4:36].astype(float).std()


def test_a_mosaic_tile_is_the_mean_of_what_it_hides() -> None:
    image = picture()
    censored = pixelate(image, [(8, 0, 24, 16)], block=8)
    for y, x in ((0, 8), (0, 16), (8, 8), (8, 16)):
        tile = censored[y : y + 8, x : x + 8].reshape(-1, 3)
        assert (tile == tile[0]).all()
        mean = image[y : y + 8, x : x + 8].reshape(-1, 3).mean(axis=0)
        assert tile[0] == pytest.approx(mean, abs=1)


def test_a_stronger_blur_leaves_less() -> None:
    image, box = picture(), (0.0, 0.0, 40.0, 24.0)
    weak, strong = (blur(image, [box], radius).astype(float).std() for radius in (0.5, 4.0))
    assert strong < weak < image.astype(float).std()


def test_a_fill_is_one_colour() -> None:
    assert (fill(picture(), [(0, 0, 9, 9)], (1, 2, 3))[:9, :9] == (1, 2, 3)).all()


@pytest.mark.parametrize("box", [(0, 0, 20, 12), (-3, 8, 20, 40), (4, 4, 36, 20), (0, 0, 40, 24)])
def test_inpainting_knows_nothing_of_what_it_hides(box: Box) -> None:
    ramp = np.linspace(60, 200, WIDTH).astype(np.uint8)
    smooth = np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDTH, 3)).copy()
    marked = np.where(inside([box])[..., None], picture(), smooth)
    hidden = censor(marked, [box], "inpaint")
    if not inside([box]).all():  # else only the mean of the picture is left
        assert np.array_equal(hidden, censor(smooth, [box], "inpaint"))
        assert np.abs(hidden.astype(float) - smooth).max() < 60
    else:
        assert np.ptp(hidden, axis=(0, 1)).max() == 0


def test_a_mixture_draws_one_method_per_picture() -> None:
    image, box = picture(), (4.0, 4.0, 36.0, 20.0)
    alone = {censor(image, [box], how).tobytes() for how in ("inpaint", "pixelate")}
    mixed = [censor(image, [box], "inpaint+pixelate", index).tobytes() for index in range(40)]
    assert set(mixed) == alone
    assert mixed == [censor(image, [box], "inpaint+pixelate", i).tobytes() for i in range(40)]
