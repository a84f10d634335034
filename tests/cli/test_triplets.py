"""``safegen triplets`` end to end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.editing.latents import TripletLatents
from safegen.triplets.censoring import fill

BOX = (4, 4, 12, 12)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(safegen: Run) -> Run:
    """Runs ``safegen triplets`` and answers exit code, standard output and standard error."""
    return functools.partial(safegen, "triplets")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders unsafe (3), benign (2) and masks, and a CSV that names censored copies."""
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    for name in ("a", "b", "c"):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        save(tmp_path / "unsafe" / f"{name}.png", image)
        save(tmp_path / "censored" / f"{name}.png", fill(image, [BOX]))
        save(tmp_path / "masks" / f"{name}.png", mask)
    for name in ("x", "y"):
        save(tmp_path / "benign" / f"{name}.png", rng.integers(0, 256, (16, 16, 3), np.uint8))
    rows = [f"unsafe/{u}.png,censored/{u}.png,benign/{b}.png" for u, b in ("ax", "by", "cx")]
    (tmp_path / "set.csv").write_text("\n".join(["unsafe,censored,benign", *rows]))
    return tmp_path


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)


def folders(pictures: Path) -> list[str | Path]:
    return ["--unsafe", pictures / "unsafe", "--benign", pictures / "benign"]


def test_folders_with_masks_become_latents_and_a_review(
    run: Run, pictures: Path, tiny_folder: Path
) -> None:
    out, review = pictures / "out" / "latents.safetensors", pictures / "review"
    code, said, _ = run(
        tiny_folder, *folders(pictures), "--masks", pictures / "masks",
        "--censoring", "fill", "--out", out, "--censored-out", review,
    )  # fmt: skip
    assert code == 0
    assert "3 pairs, 2 benign pictures" in said
    latents = TripletLatents.load(out)
    assert latents.unsafe.shape == latents.censored.shape == (3, 4, 8, 8)
    assert latents.benign.shape == (2, 4, 8, 8)
    assert latents.source["censoring"] == "fill"
    written = sorted(review.iterdir())
    assert [file.name[:6] for file in written] == ["00001-", "00002-", "00003-"]
    for file, name in zip(written, "abc", strict=True):
        expected = Image.open(pictures / "censored" / f"{name}.png")
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(expected))


def test_a_csv_with_censored_pictures_gives_the_same_latents(
    run: Run, pictures: Path, tiny_folder: Path
) -> None:
    by_csv, by_mask = pictures / "csv.safetensors", pictures / "mask.safetensors"
    assert run(tiny_folder, "--csv", pictures / "set.csv", "--out", by_csv)[0] == 0
    masked = ["--masks", pictures / "masks", "--censoring", "fill"]
    assert run(tiny_folder, *folders(pictures), *masked, "--out", by_mask)[0] == 0
    a, b = TripletLatents.load(by_csv), TripletLatents.load(by_mask)
    assert a.unsafe.equal(b.unsafe)
    assert a.censored.equal(b.censored)


def test_the_lab_makes_its_own(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "latents.safetensors"
    options = ["--from-model", "--count", "3", "--steps", "10", "--seed", "5", "--batch", "4"]
    code, said, complained = run("lab", *options, "--out", out)
    assert code == 0, complained
    assert "3 pairs, 3 benign pictures" in said
    latents = TripletLatents.load(out)
    assert len(latents.captions) == 3
    assert latents.source["kind"] == "self-made"
    assert latents.source["sampling"]["steps"] == 10
    assert latents.source["detector"]["name"] == "lab"
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say where the triplets come from"),
        (["--csv", "set.csv", "--from-model"], "say where the triplets come from, once"),
        (["--unsafe", "unsafe"], "--benign is missing"),
        (["--csv", "gone.csv"], "gone.csv: no such file; check the path"),
        (["--csv", "set.csv", "--count", "3"], "--count: has no effect"),
        (["--from-model", "--masks", "masks"], "--masks: has no effect"),
        (["--from-model"], "--from-model needs --unsafe-prompts FILE and --benign-prompts FILE"),
        (["--csv", "set.csv", "--out", "unsafe"], "unsafe: is a folder"),
        (["--csv", "set.csv", "--censored-out", "benign"], "benign: exists already"),
        (["--csv", "set.csv", "--masks", "masks", "--detector", "lab"], "leave --detector"),
        (["--csv", "set.csv", "--censoring", "fill+smear"], "unknown censoring 'smear'; known: "),
        (
            ["--unsafe", "unsafe", "--benign", "benign", "--detector", "nudnet"],
            "Did you mean 'nudenet'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    run: Run,
    pictures: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(pictures)
    before = set(pictures.rglob("*"))
    code, _, complained = run(tiny_folder, *options)
    assert code == 2
    assert message in complained
    assert complained.count("\n") == 1
    assert set(pictures.rglob("*")) == before


def test_a_corrupt_picture_is_named_by_row_and_nothing_is_left(
    run: Run, pictures: Path, tiny_folder: Path
) -> None:
    file = pictures / "unsafe" / "b.png"
    file.write_bytes(file.read_bytes()[:100])
    before = set(pictures.rglob("*"))
    code, _, complained = run(
        tiny_folder, "--csv", pictures / "set.csv", "--out", pictures / "latents.safetensors",
        "--censored-out", pictures / "review",
    )  # fmt: skip
    assert code == 2
    assert "set.csv row 3, unsafe 'unsafe/b.png': cannot be read as an image" in complained
    assert complained.count("\n") == 1
    assert set(pictures.rglob("*")) == before
