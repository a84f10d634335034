"""``safegen evaluate``: one command from a model to its table, and a gate for CI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from safegen.cli import app
from safegen.errors import SafegenError

LAB = ("lab", "--unsafe", "explicit=lab:explicit,count=6", "--benign", "cats=lab:benign,count=6",
       "--detector", "lab", "--objects", "lab", "--steps", "4", "--batch", "6")  # fmt: skip


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one defense on the lab."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    result = invoke(*LAB, "--defense", "filtered", "--out", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_the_table_is_printed_and_written(run_folder: Path) -> None:
    for name in (
        "summary.json",
        "results.csv",
        "table.md",
        "report.html",
        "tradeoff.png",
        "store.sqlite",
    ):
        assert (run_folder / name).stat().st_size > 0
    result = invoke(*LAB, "--defense", "filtered", "--out", str(run_folder))
    assert result.exit_code == 0
    assert "filtered" in result.output
    assert "drawing" not in result.output  # all is there


def test_a_plot_of_another_table_does_not_stay(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    objects = LAB.index("--objects")
    unseen = (*LAB[:objects], *LAB[objects + 2 :])
    result = invoke(*unseen, "--defense", "filtered", "--out", str(folder))
    assert result.exit_code == 0, result.output
    assert not (folder / "tradeoff.png").exists()


def test_a_bound_that_is_missed_is_a_line_and_exit_code_1(run_folder: Path) -> None:
    command = (*LAB, "--defense", "filtered", "--out", str(run_folder))
    kept = invoke(*command, "--require", "removal>=0", "--require", "filtered:removal<=1")
    assert kept.exit_code == 0, kept.output
    missed = invoke(*command, "--require", "removal@explicit<=-1", "--require", "removal>=0")
    assert missed.exit_code == 1
    (line,) = [line for line in missed.output.splitlines() if line.startswith("safegen: ")]
    assert "removal@explicit<=-1.0: missed by filtered on explicit" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--require", "removel>=1"), "unknown name 'removel' among metrics"),
        (("--require", "removal@i2p>=1"), "no prompt set 'i2p' is evaluated; there are explicit"),
        (("--require", "uce:removal>=1"), "no defense 'uce' is evaluated; there are none, filter"),
        (("--require", "removal=1"), "write METRIC>=VALUE"),
        (("--require", "clip-score>=1"), "give --clip"),
        (("--defense", "sld-mux"), "Did you mean 'sld-max'"),
        (("--unsafe", "lab:explicit,count=6", "--benign", "explicit=lab:benign"), "twice"),
        (("--executor", "slurm"), "unknown name 'slurm' among executors"),
        (("--ray-address", "here:1"), "works on this machine only"),
        (("--count", "3"), "--count belongs to --preset"),
        (("--preset", "papers"), "unknown preset 'papers'; known: lab, paper"),
        (("--data", "."), "--data, --skip and --dry-run belong to --preset paper"),
        (("--model", "other"), "lab and --model other are two models"),
        (("--real", "nowhere"), "nowhere: no folder with pictures"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SafegenError, match=message):
        invoke(*LAB, "--defense", "filtered", "--out", str(tmp_path / "run"), *arguments)
    assert not (tmp_path / "run" / "images").exists()


def test_it_lists_what_it_knows() -> None:
    rows = dict(line.split(": ") for line in invoke("--list").output.splitlines())
    assert list(rows) == ["defenses", "prompts", "detectors", "observers", "metrics"]
    for kind, name in (("defenses", "sld-max"), ("prompts", "i2p"), ("metrics", "outlines-left")):
        assert name in rows[kind].split(", ")


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(SafegenError, match="a model, or --preset lab"):
        invoke("--defense", "filtered")
    with pytest.raises(SafegenError, match=r"evaluates the model lab, not \./mine"):
        invoke("./mine", "--preset", "lab")


def test_an_interrupted_run_goes_on(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [*LAB, "--defense", "filtered", "--out", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "safegen", "evaluate", *arguments, "--workers", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(folder.glob("images/*/*.png")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "safegen: interrupted; the same command goes on where it was"
    assert not (folder / "summary.json").exists()
    assert invoke(*arguments).exit_code == 0
    pictures = [
        sorted(path.name for path in each.glob("images/*/*.png")) for each in (run_folder, folder)
    ]
    assert pictures[0] == pictures[1]
    assert (folder / "results.csv").read_text() == (run_folder / "results.csv").read_text()


BRIGHTNESS = """
from safegen.observers import Observation, ObserverIdentity

class Brightness:
    compares = False

    def __init__(self, channel: str, *, scale: float = 1.0):
        self.channel, self.scale = int(channel), scale
        self.identity = ObserverIdentity("brightness", {"channel": channel, "scale": scale})

    def observe(self, sights):
        means = [float(sight.image[..., self.channel].mean()) for sight in sights]
        return [Observation({"brightness": self.scale * mean}) for mean in means]
"""


def test_another_packages_observer_looks_on(
    tiny_folder: Path, tmp_path: Path, installed: Callable[..., Any]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    entries = "[safegen.observers]\nbrightness = brightness_of_pictures:Brightness\n"
    with installed("brightness_of_pictures", BRIGHTNESS, entries):
        options = ("--defense", "none", "--steps", "1", "--observer", "brightness:2,scale=0.5")
        what = (str(tiny_folder), "--unsafe", str(prompts), "--out", str(tmp_path / "run"))
        result = invoke(*what, *options)
    assert result.exit_code == 0, result.output
    observers = summary_of(tmp_path / "run")["provenance"]["observers"]
    assert observers["brightness"] == {"channel": "2", "scale": 0.5}
