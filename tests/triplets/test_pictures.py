"""Picture files are read whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safegen.errors import SafegenError
from safegen.triplets.pictures import image_files, read_mask, read_picture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
loose = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def encoded(kind: str) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def attempt(file: Path) -> tuple[np.ndarray | None, str]:
    """The picture, or what the error says."""
    try:
        return read_picture(file, "row 7"), ""
    except SafegenError as error:
        return None, str(error)


@loose
@given(kind=st.sampled_from(FORMATS), share=st.floats(0, 0.999))
def test_a_truncated_file_is_never_read_in_part(tmp_path: Path, kind: str, share: float) -> None:
    content, file = encoded(kind), tmp_path / "picture"
    file.write_bytes(content)
    whole = read_picture(file, "picture")
    file.write_bytes(content[: int(share * len(content))])
    image, problem = attempt(file)
    assert np.array_equal(image, whole) if image is not None else "cannot be read" in problem


@loose
@given(kind=st.sampled_from(FORMATS), position=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_damaged_file_is_an_array_or_a_clear_error(
    tmp_path: Path, kind: str, position: float, byte: int
) -> None:
    content = bytearray(encoded(kind))
    content[int(position * len(content))] = byte
    file = tmp_path / "picture"
    file.write_bytes(content)
    image, problem = attempt(file)
    if image is None:
        assert problem.startswith("row 7: cannot be read as an image")
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    content, file = encoded(kind), tmp_path / "picture"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SafegenError, match="replace it or take it out"):
        read_picture(file, "picture")


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png", "a")
    assert (image[0] == (10, 20, 30)).all()
    assert (image[1] == 255).all()


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg", "a").shape == (30, 20, 3)


def test_deep_pictures_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SafegenError, match="deep: has more than 8 bits a channel"):
        read_picture(tmp_path / "deep.png", "deep")


def test_files_of_several_or_of_too_large_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    with pytest.raises(SafegenError, match="row 3: holds 2 pictures; save the one that is meant"):
        read_picture(tmp_path / "moving.gif", "row 3")
    first.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # half of which is warned of only
    with pytest.raises(SafegenError, match=r"row 4: cannot be read .* exceeds limit"):
        read_picture(tmp_path / "large.png", "row 4")


def test_a_mask_is_true_where_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", "m").tolist() == [[False, False, True, True]]


def test_a_black_mask_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(SafegenError, match=r"m\.png: the mask is black"):
        read_mask(tmp_path / "m.png", "m.png")


def test_a_folder_is_listed_sorted_without_hidden_and_other_files(
    picture_folders: tuple[Path, Path],
) -> None:
    assert [file.name for file in image_files(picture_folders[0])] == ["a.webp", "b.PNG", "c.png"]


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SafegenError, match="empty: holds no images"):
        image_files(tmp_path / "empty")
    with pytest.raises(SafegenError, match="gone: no such folder"):
        image_files(tmp_path / "gone")
