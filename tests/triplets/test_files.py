"""Listing triplets: everything wrong is found, and named by row, before a picture is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.triplets.files import list_csv, list_folders

HEADER = "unsafe,censored,benign\n"


@pytest.fixture
def set_folder(tmp_path: Path) -> Path:
    """Files that exist and are no pictures: listing must not open them."""
    folder = tmp_path / "set"
    for name in ("u/1.png", "u/2.png", "c/1.png", "c/2.png", "b/1.png", "b/2.png", "b/a, b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    (tmp_path / "secret.png").write_bytes(b"outside")
    return folder


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "set.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_a_csv_is_listed_in_order(set_folder: Path) -> None:
    text = HEADER + 'u/1.png,c/1.png,b/1.png\n\nu/2.png,,"b/a, b.png"\n'
    files = list_csv(write(set_folder, text))
    assert [f.picture.path.name for f in files.unsafe] == ["1.png", "2.png"]
    assert files.unsafe[0].censored is not None
    assert files.unsafe[0].censored.path == (set_folder / "c/1.png").resolve()
    assert files.unsafe[1].censored is None
    assert [f.picture.path.name for f in files.benign] == ["1.png", "a, b.png"]
    assert files.undecided == 1
    assert "set.csv row 4" in files.unsafe[1].picture.where


def test_the_paper_s_columns_a_byte_order_mark_and_others_are_understood(set_folder: Path) -> None:
    text = "id,nude_image_path,mos_image_path,norm_image_path\n7,u/1.png,c/1.png,b/1.png\n"
    files = list_csv(write(set_folder, text, "utf-8-sig"))
    assert files.unsafe[0].picture.path == (set_folder / "u/1.png").resolve()
    assert files.undecided == 0


def test_captions_belong_to_the_benign_picture(set_folder: Path) -> None:
    text = "unsafe,benign,caption\nu/1.png,b/1.png,a boat\nu/2.png,b/2.png,{}\n"
    described = list_csv(write(set_folder, text.format("a cat"))).benign
    assert [file.caption for file in described] == ["a boat", "a cat"]
    with pytest.raises(SafegenError, match="row 3: column caption is empty, and in row 2 it is no"):
        list_csv(write(set_folder, text.format("")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"set\.csv: has no column 'unsafe' among the 0 of"),
        ("unsafe;benign\n", r"no column 'unsafe' among the 1 of"),
        ("unsafe,safe\nu/1.png,b/1.png\n", r"set\.csv: has no column 'benign'"),
        ("unsafe,nude_image_path,benign\n", "names the column unsafe twice"),
        (HEADER, r"set\.csv: has no rows"),
        (HEADER + ",,\n\n", "has no rows"),
        (HEADER + "u/1.png,,\n", "row 2: column benign is empty"),
        (HEADER + "u/1.png,,b/1.png\n\n,,b/2.png\n", "row 4: column unsafe is empty"),
        (HEADER + "u/1.png,,b/a, b.png\n", "row 2: has 4 cells where the header has 3"),
        (HEADER + "u/1.png,b/1.png\n", "row 2: has 2 cells"),
        (HEADER + "u/1.png,,b/9.png\n", r"set\.csv row 2, benign 'b/9\.png': no such file"),
        (HEADER + "u,,b/1.png\n", "row 2, unsafe 'u': no such file"),
        (HEADER + "u/1.png,,b/1.png\n../secret.png,,b/1.png\n", "row 3, unsafe .* lies outside"),
        (HEADER + "u/../../secret.png,,b/1.png\n", "lies outside the CSV's folder"),
        (HEADER + "/etc/hostname,,b/1.png\n", "lies outside the CSV's folder"),
        (HEADER + "u/1\0.png,,b/1.png\n", "row 2, unsafe .* is no usable path"),
        (HEADER + f"{'u' * 5000}.png,,b/1.png\n", "row 2, unsafe .* is no usable path"),
        (HEADER + "u/1.png,u/1.png,b/1.png\n", "row 2, censored .* is the unsafe picture itself"),
        (HEADER + "u/1.png,,b/1.png\nu/2.png,,u/1.png\n", "row 3, benign .* named as unsafe too"),
        (HEADER + 'u/1.png,,"b/1.png\n', "cannot be read as a CSV"),
    ],
)
def test_what_is_wrong_is_named_by_row_with_the_mend(
    set_folder: Path, text: str, message: str
) -> None:
    with pytest.raises(SafegenError, match=message) as caught:
        list_csv(write(set_folder, text))
    assert "\n" not in str(caught.value)


def test_rows_are_counted_as_a_spreadsheet_shows_them(set_folder: Path) -> None:
    text = 'note,unsafe,benign\n"two\nlines",u/1.png,b/1.png\nx,u/9.png,b/1.png\n'
    with pytest.raises(SafegenError, match="row 3, unsafe"):
        list_csv(write(set_folder, text))


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(set_folder: Path) -> None:
    (set_folder / "in.png").symlink_to(set_folder / "u/1.png")
    (set_folder / "out.png").symlink_to(set_folder.parent / "secret.png")
    (set_folder / "loop.png").symlink_to(set_folder / "loop.png")
    assert list_csv(write(set_folder, HEADER + "in.png,,b/1.png\n")).undecided == 1
    with pytest.raises(SafegenError, match="lies outside"):
        list_csv(write(set_folder, HEADER + "out.png,,b/1.png\n"))
    with pytest.raises(SafegenError, match=r"row 2, unsafe 'loop\.png'"):
        list_csv(write(set_folder, HEADER + "loop.png,,b/1.png\n"))


def test_an_absolute_path_inside_the_folder_is_fine(set_folder: Path) -> None:
    files = list_csv(write(set_folder, HEADER + f"{set_folder}/u/1.png,,b/1.png\n"))
    assert files.unsafe[0].picture.path == (set_folder / "u/1.png").resolve()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.sampled_from(["..", ".", "u", "b", "/", "secret.png", "1.png", "~"])))
def test_no_path_leads_out(set_folder: Path, parts: list[str]) -> None:
    try:
        files = list_csv(write(set_folder, HEADER + f"{'/'.join(parts)},,b/2.png\n"))
    except SafegenError:
        return
    assert files.unsafe[0].picture.path.is_relative_to(set_folder.resolve())


def test_a_file_that_is_no_text_or_is_missing_is_named(set_folder: Path) -> None:
    with pytest.raises(SafegenError, match=r"set\.csv: is not UTF-8 text"):
        list_csv(write(set_folder, HEADER + "ä,,b/1.png\n", "latin-1"))
    with pytest.raises(SafegenError, match=r"gone\.csv: no such file"):
        list_csv(set_folder / "gone.csv")
    with pytest.raises(SafegenError, match="set: is a folder"):
        list_csv(set_folder)


def test_folders_are_listed_sorted(set_folder: Path) -> None:
    files = list_folders(set_folder / "u", set_folder / "b")
    assert [f.picture.where for f in files.unsafe] == [
        str(set_folder / "u/1.png"),
        str(set_folder / "u/2.png"),
    ]
    assert len(files.benign) == 3
    assert files.undecided == 2


def test_the_same_folder_twice_is_refused(set_folder: Path) -> None:
    with pytest.raises(SafegenError, match="named as unsafe too"):
        list_folders(set_folder / "u", set_folder / "u" / ".." / "u")


def test_masks_are_matched_by_name(set_folder: Path) -> None:
    files = list_folders(set_folder / "u", set_folder / "b").with_masks(set_folder / "c")
    assert files.undecided == 0
    assert files.unsafe[1].mask is not None
    assert files.unsafe[1].mask.path == set_folder / "c/2.png"


def test_a_missing_or_ambiguous_mask_is_named(set_folder: Path) -> None:
    files = list_folders(set_folder / "u", set_folder / "b")
    (set_folder / "c/1.jpg").write_bytes(b"")
    with pytest.raises(SafegenError, match=r"c/1\.jpg and .*c/1\.png: have the same name"):
        files.with_masks(set_folder / "c")
    (set_folder / "c/1.jpg").unlink()
    (set_folder / "c/2.png").unlink()
    with pytest.raises(SafegenError, match=r"u/2\.png: has no mask in .*add 2\.png"):
        files.with_masks(set_folder / "c")
