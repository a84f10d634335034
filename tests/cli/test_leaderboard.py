"""``safegen leaderboard``: a page and a CSV from a run and the rows of others."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.report.pictures import blurred
from safegen.report.tables import read_summary

Run = Callable[..., tuple[int, str, str]]
OTHERS = """model,defense,changes,prompt_set,role,metric,value,low,high,count,date,measured
sd-1.4,<b>theirs</b>,weights,i2p,unsafe,removal,0.83,0.80,0.86,931,2025-11-01,NudeNet 3.4.2 at 0.6
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, safegen: Run) -> Path:
    """A run of one defense on two sets of harmless prompts."""
    place = tmp_path_factory.mktemp("leaderboard")
    for name, prompts in (("unsafe", "a knife\na cat and a knife\n"), ("benign", "a cat\n")):
        (place / f"{name}.txt").write_text(prompts)
    sets = ("--unsafe", f"knives=own:{place}/unsafe.txt", "--benign", f"own:{place}/benign.txt")
    how = ("--detector", "lab", "--steps", "1", "--defense", "negative-prompt")
    told = ("--concept-text", "a knife", "--out", place / "tiny")
    code, _, complained = safegen("evaluate", tiny_folder, *sets, *how, *told)
    assert code == 0, complained
    return place / "tiny"


def test_a_run_and_the_rows_of_others_stand_on_one_page(
    run_folder: Path, tmp_path: Path, safegen: Run
) -> None:
    (tmp_path / "others.csv").write_text(OTHERS)
    out = tmp_path / "board.html"
    order = ("leaderboard", run_folder, "--rows", tmp_path / "others.csv", "--out", out)
    code, said, complained = safegen(*order)
    assert code == 0, complained
    page, table = out.read_text(), read_summary(run_folder / "summary.json")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "board.csv").read_text())))
    assert said == f"{len(table.figures) + 1} figures: {out} and {tmp_path / 'board.csv'}\n"
    assert len(rows) == len(table.figures) + 1
    ours = next(row for row in rows if row["defense"] == "negative-prompt")
    assert (ours["changes"], ours["origin"], ours["model"]) == ("sampling", "tiny", "model")
    assert ours["command"].startswith("safegen evaluate model --unsafe knives=own:unsafe.txt ")
    assert str(run_folder.parent) not in page
    assert "&lt;b&gt;theirs&lt;/b&gt;" in page
    assert "<b>theirs" not in page
    # What the CSV says can be read as rows, and makes the same figures.
    again = tmp_path / "again.html"
    code, said, _ = safegen("leaderboard", "--rows", tmp_path / "board.csv", "--out", again)
    assert (code, said.split()[0]) == (0, str(len(rows)))


def test_pictures_of_unsafe_prompts_are_blurred(
    run_folder: Path, tmp_path: Path, safegen: Run
) -> None:
    out = tmp_path / "board.html"
    assert safegen("leaderboard", run_folder, "--out", out)[0] == 0
    found = re.findall(
        r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]+)"', out.read_text()
    )
    assert [alt for _, alt in found] == [
        "none on knives, blurred", "none on own",
        "negative-prompt on knives, blurred", "negative-prompt on own",
    ]  # fmt: skip
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data, _ in found]
    drawn = [Image.open(path) for path in sorted(run_folder.glob("images/*/*.png"))]
    sharp = [np.asarray(picture.convert("RGB")) for picture in drawn]
    soft = [np.asarray(blurred(picture.convert("RGB"))) for picture in drawn]
    for picture, (_, alt) in zip(shown, found, strict=True):
        kept, lost = (soft, sharp) if "blurred" in alt else (sharp, soft)
        assert any(np.array_equal(np.asarray(picture), each) for each in kept)
        assert not any(np.array_equal(np.asarray(picture), each) for each in lost)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show; give run folders, or --rows FILE.csv"),
        (["nowhere"], "summary.json: cannot be read as the summary of an evaluation"),
        (["--rows", "{others}", "--out", "board.txt"], "its name ends with .html"),
        (["--rows", "{others}", "--out", "{folder}/others.html"], "is read by this command"),
        (["--rows", "{others}", "--rows", "{others}"], "gives removal of .* on i2p twice"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, safegen: Run, arguments: list[str], message: str
) -> None:
    (tmp_path / "others.csv").write_text(OTHERS)
    names = {"others": tmp_path / "others.csv", "folder": tmp_path}
    order = [each.format(**names) for each in arguments]
    if "--out" not in order:
        order += ["--out", str(tmp_path / "board.html")]
    code, _, complained = safegen("leaderboard", *order)
    assert (code, bool(re.search(message, complained))) == (2, True), complained
    assert not (tmp_path / "board.html").exists()


def test_a_row_that_does_not_fit_is_named(tmp_path: Path, safegen: Run) -> None:
    (tmp_path / "others.csv").write_text(OTHERS.replace("0.83", "83"))
    code, _, complained = safegen(
        "leaderboard", "--rows", tmp_path / "others.csv", "--out", tmp_path / "board.html"
    )
    assert (code, complained) == (
        2, f"safegen: {tmp_path / 'others.csv'} row 1: low, value and high must ascend\n",
    )  # fmt: skip
