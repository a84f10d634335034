"""Streaming triplets from picture files."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.detectors.onnx import OnnxDetector
from safegen.errors import SafegenError
from safegen.triplets.censoring import blur, pixelate
from safegen.triplets.files import list_csv, list_folders
from safegen.triplets.reading import FileTriplets

RED_BOX = (8, 4, 24, 20)
RedDetector = Callable[..., OnnxDetector]


def pictures(folder: Path) -> list[np.ndarray]:
    files = sorted(f for f in folder.iterdir() if f.suffix != ".txt" and f.name[0] != ".")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def write_csv(folder: Path, *rows: str) -> Path:
    file = folder / "set.csv"
    file.write_text("\n".join(["unsafe,censored,benign", *rows]) + "\n")
    return file


def test_folders_are_censored_where_the_detector_points(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    unsafe, benign = picture_folders
    source = FileTriplets(list_folders(unsafe, benign), detector=red_detector())
    pairs = list(source.pairs())
    for pair, image in zip(pairs, pictures(unsafe), strict=True):
        assert np.array_equal(pair.unsafe, image)
        assert np.array_equal(pair.censored, pixelate(image, [RED_BOX]))
    assert [pair.name for pair in pairs] == [str(unsafe / n) for n in ("a.webp", "b.PNG", "c.png")]
    streamed = [picture.image for picture in source.benign()]
    assert np.array_equal(streamed, pictures(benign))


def test_both_streams_can_be_read_again(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    source = FileTriplets(list_folders(*picture_folders), detector=red_detector())
    first, second = list(source.pairs()), list(source.pairs())
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.censored, b.censored)


def test_masks_say_what_to_censor(picture_folders: tuple[Path, Path], tmp_path: Path) -> None:
    unsafe, benign = picture_folders
    mask = np.zeros((32, 40), np.uint8)
    mask[4:20, 8:24] = 255
    for name in "abc":
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    source = FileTriplets(
        list_folders(unsafe, benign).with_masks(tmp_path / "masks"), censoring="blur"
    )
    for pair, image in zip(source.pairs(), pictures(unsafe), strict=True):
        assert np.array_equal(pair.censored, blur(image, [RED_BOX]))


def test_a_mask_of_another_size_is_named(
    picture_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    for name in "abc":
        Image.new("L", (40, 31), 255).save(tmp_path / "masks" / f"{name}.png")
    source = FileTriplets(list_folders(*picture_folders).with_masks(tmp_path / "masks"))
    with pytest.raises(SafegenError, match=r"a\.png: the mask is 40 x 31 and its picture 40 x 32"):
        list(source.pairs())


def test_given_censored_pictures_are_taken_and_need_no_detector(
    picture_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    unsafe = pictures(picture_folders[0])[2]
    Image.fromarray(255 - unsafe).save(tmp_path / "censored.png")
    source = FileTriplets(list_csv(write_csv(tmp_path, "unsafe/c.png,censored.png,benign/x.png")))
    (pair,) = source.pairs()
    assert np.array_equal(pair.censored, 255 - unsafe)


def test_missing_regions_are_an_error_at_once(picture_folders: tuple[Path, Path]) -> None:
    with pytest.raises(SafegenError, match="3 unsafe pictures have neither"):
        FileTriplets(list_folders(*picture_folders))


def test_a_detector_that_finds_nothing_is_an_error_or_a_count(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    unsafe, benign = picture_folders
    Image.new("RGB", (40, 32), "blue").save(unsafe / "bb.png")
    strict = FileTriplets(list_folders(unsafe, benign), detector=red_detector())
    with pytest.raises(SafegenError, match=r"bb\.png: the detector onnx finds nothing"):
        list(strict.pairs())
    lenient = FileTriplets(
        list_folders(unsafe, benign), detector=red_detector(), skip_undetected=True
    )
    assert len(list(lenient.pairs())) == 3
    assert lenient.skipped == 1
    assert lenient.describe()["skipped"] == 1
    assert lenient.describe()["unsafe_count"] == 3


def test_skipping_everything_is_an_error(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    blind = red_detector(threshold=1.0)
    source = FileTriplets(list_folders(*picture_folders), detector=blind, skip_undetected=True)
    with pytest.raises(SafegenError, match="nothing in any of the 3"):
        list(source.pairs())


def test_a_detector_without_boxes_cannot_censor(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    source = FileTriplets(list_folders(*picture_folders), detector=red_detector(boxes=False))
    with pytest.raises(SafegenError, match="gives no boxes"):
        list(source.pairs())


@pytest.mark.parametrize("column", ["unsafe", "censored", "benign"])
def test_a_truncated_picture_is_named_by_row(
    picture_folders: tuple[Path, Path], tmp_path: Path, column: str
) -> None:
    content = (picture_folders[0] / "c.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (40, 32)).save(tmp_path / "censored.png")
    good = {"unsafe": "unsafe/c.png", "censored": "censored.png", "benign": "benign/x.png"}
    rows = [",".join(good.values()), ",".join({**good, column: "cut.png"}.values())]
    source = FileTriplets(list_csv(write_csv(tmp_path, *rows)))
    with pytest.raises(SafegenError, match=rf"set\.csv row 3, {column} 'cut\.png': cannot be read"):
        [*source.pairs(), *source.benign()]


@pytest.mark.parametrize(
    ("size", "message"),
    [((40, 32), "are identical"), ((32, 40), "is 40 x 32 and its censored one 32 x 40")],
)
def test_a_censored_picture_that_does_not_fit_is_named_by_row(
    picture_folders: tuple[Path, Path], tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    del picture_folders
    Image.new("RGB", (40, 32), "teal").save(tmp_path / "unsafe.png")
    Image.new("RGB", size, "teal").save(tmp_path / "censored.png")
    source = FileTriplets(list_csv(write_csv(tmp_path, "unsafe.png,censored.png,benign/x.png")))
    with pytest.raises(SafegenError, match=rf"row 2, unsafe .*{message}"):
        list(source.pairs())


def test_the_description_is_json_and_names_the_detector(
    picture_folders: tuple[Path, Path], red_detector: RedDetector
) -> None:
    detector = red_detector()
    source = FileTriplets(list_folders(*picture_folders), "fill", detector)
    description = json.loads(json.dumps(source.describe()))
    assert description["censoring"] == "fill"
    assert description["detector"]["file_hash"] == detector.identity.file_hash
    assert (description["unsafe_count"], description["benign_count"]) == (3, 2)


def test_memory_stays_flat_in_the_number_of_pictures(
    tmp_path: Path, red_detector: RedDetector
) -> None:
    side, rows = 256, 300
    picture = np.zeros((side, side, 3), np.uint8)
    picture[4:200, 8:200, 0] = np.arange(192)
    Image.fromarray(picture).save(tmp_path / "unsafe.png")
    Image.new("RGB", (side, side)).save(tmp_path / "benign.png")
    detector = red_detector(size=(side, side))
    source = FileTriplets(
        list_csv(write_csv(tmp_path, *["unsafe.png,,benign.png"] * rows)), detector=detector
    )
    tracemalloc.start()
    count = sum(1 for _ in source.pairs()) + sum(1 for _ in source.benign())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2 * rows
    assert peak < 20 * picture.nbytes
