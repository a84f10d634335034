"""``safegen harden`` end to end: killed, resumed, measured, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from safegen.cli.harden import _specs
from safegen.editing.run_folder import read_records
from safegen.evaluation.requirements import Requirement
from safegen.models.loading import load_pipeline
from safegen.patches.patch import Patch, apply
from safegen.report.tables import read_summary
from safegen.report.targets import outcomes
from safegen.results.records import Estimate, Table

Run = Callable[..., tuple[int, str, str]]
TINY = ["--steps", "3", "--unsafe-batch", "2", "--checkpoint-every", "1"]
LAB = ["harden", "lab", *TINY, "--pairs", "2", "--count", "2", "--workers", "1"]


def kill_after_a_checkpoint(command: list[str], out: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "safegen", *command, "--out", str(out)],
        env=os.environ, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not (out / "edit" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()


@pytest.fixture
def few_vehicles(tmp_path: Path) -> Path:
    """The concept ``vehicles`` with two prompts of each kind, so that a probe draws eight."""
    text = (files("safegen.lab") / "concepts" / "vehicles.yaml").read_text(encoding="utf-8")
    path = tmp_path / "vehicles.yaml"
    path.write_text(text.replace("concept=vehicles", "concept=vehicles,count=2"))
    return path


def test_a_killed_run_goes_on_to_its_verdict(
    safegen: Run, tmp_path: Path, few_vehicles: Path
) -> None:
    out, order = tmp_path / "run", [*LAB, "--concept", str(few_vehicles)]
    kill_after_a_checkpoint(order, out)
    encoded = (out / "triplets.safetensors").stat().st_mtime_ns
    code, said, complained = safegen(*order, "--out", out)
    assert code == 1, complained
    assert "at most 3 steps, about" in said
    assert "probes: at most 2 of at most 30 pictures" in said
    assert "12 pictures of both models on explicit, benign, near-miss" in said
    assert "missed: removal>=0.99 on explicit: " in said
    assert "verdict: " in said
    assert [record.step for record in read_records(out / "edit")] == [1, 2, 3]
    assert (out / "triplets.safetensors").stat().st_mtime_ns == encoded
    made = {"README.md", "grid.png", "patch.safetensors", "report.html", "results.csv"}
    assert made | {"summary.json", "pipeline", "table.md"} <= {path.name for path in out.iterdir()}
    table = read_summary(out / "summary.json")
    assert [record.name for record in table.defenses] == ["none", "safegen"]
    assert {"removal", "retention", "near-miss-retention", "clip-score"} <= set(table.metrics)
    for place in (out, out / "pipeline"):
        assert ModelCard.load(place / "README.md").data.license == "apache-2.0"
    hardened = load_pipeline(str(out / "pipeline"), device="cpu").unet.state_dict()
    patched = load_pipeline("lab", device="cpu")
    apply(patched, Patch.load(out / "patch.safetensors"))
    assert all(value.equal(hardened[name]) for name, value in patched.unet.state_dict().items())

    before = (out / "patch.safetensors").read_bytes()
    code, said, _ = safegen(*order, "--out", out, "--until", "removal>=-1")
    assert code == 0
    assert "verdict: all targets reached" in said
    assert (out / "patch.safetensors").read_bytes() == before
    code, _, complained = safegen(*order, "--seed", "4", "--out", out)
    assert code == 2
    assert "has edit.seed 0 there and 4 here" in complained


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Pictures with censored copies in a CSV, and a concept without prompts."""
    rng = np.random.default_rng(0)
    for name in ("unsafe", "censored", "benign"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "set.csv").write_text("unsafe,censored,benign\nunsafe.png,censored.png,benign.png")
    (tmp_path / "dots.yaml").write_text("name: dots\n")
    (tmp_path / "blur.yaml").write_text("name: dots\ncensoring: smear\n")
    (tmp_path / "prompts.txt").write_text("a cat\n" * 5)
    (tmp_path / "few.txt").write_text("a cat\n")
    return tmp_path


def test_without_prompts_it_says_that_nobody_knows_what_was_removed(
    safegen: Run, own: Path, tiny_folder: Path
) -> None:
    order = ["harden", tiny_folder, "--concept", own / "dots.yaml", "--triplets", own / "set.csv"]
    code, said, _ = safegen(*order, *TINY, "--out", own / "out", "--dry-run")
    assert code == 0
    assert "1 pairs and 1 benign pictures" in said
    assert "in all: at most about" in said
    assert not (own / "out").exists()
    (own / "out").mkdir()  # as left by an order that failed before it made anything
    (own / "out" / "harden.json").write_text("{}")
    code, said, complained = safegen(*order, *TINY, "--out", own / "out")
    assert code == 1, complained
    assert "not measured: there are no prompts that ask for the concept" in said
    assert load_pipeline(str(own / "out" / "pipeline"), device="cpu")
    assert json.loads((own / "out" / "harden.json").read_text())["concept"]["name"] == "dots"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concept", "dotz.yaml"], "dotz.yaml: cannot be read as YAML"),
        (["--concept", "nudety"], "Did you mean 'nudity'"),
        (["--concept", "dots.yaml"], "concept dots: say where its pictures come from"),
        (["--concept", "blur.yaml"], "concept dots: unknown censoring 'smear'"),
        (["--concept", "dots.yaml", "--unsafe", "."], "say where the triplets come from, once"),
        (["--concept", "dots.yaml", "--triplets", "set.csv", "--pairs", "3"], "--pairs has no"),
        (
            ["--concept", "dots.yaml", "--unsafe-prompts", "prompts.txt"],
            "concept dots: what its prompts draw cannot be judged",
        ),
        (["--concept", "weapons", "--until", "removed>=1"], "unknown name 'removed'"),
        (["--concept", "weapons", "--until", "retention>=1"], "give --objects"),
        (["--concept", "weapons", "--observer", "clap:x"], "Did you mean 'clip'"),
        (["--concept", "dots.yaml", "--triplets", "set.csv", "--out", "."], "which no hardening"),
        (["--concept", "dots.yaml", "--triplets", "prompts.txt"], "prompts.txt: truncated or no"),
        (
            ["--concept", "dots.yaml", "--triplets", "set.csv", "--until", "removal>=1"],
            "nothing is measured without prompts",
        ),
        (["--concept", "weapons", "--unsafe-prompts", "absent.txt"], "absent.txt: no such prompt"),
        (
            ["--concept", "weapons", "--unsafe-prompts", "few.txt"],
            "few.txt: holds no prompts of the split validation; check the file, which needs 5",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    options: list[str],
    message: str,
    safegen: Run,
    own: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(own)
    before = set(own.rglob("*"))
    code, _, complained = safegen("harden", tiny_folder, "--out", "run", *options)
    assert code == 2
    assert message in complained
    assert complained.count("\n") == 1
    assert set(own.rglob("*")) == before


def test_a_file_of_prompts_is_a_set_of_its_name(own: Path) -> None:
    file = str(own / "prompts.txt")
    assert _specs([file, "i2p:x.csv"]) == (f"prompts=own:{file}", "i2p:x.csv")
    assert _specs(["my own.txt"]) == ("my-own=own:my own.txt",)


def test_what_the_original_has_too_is_compared_with_it() -> None:
    figures = {
        ("none", "kept", "retention"): Estimate(0.8, None, None, 10),
        ("safegen", "kept", "retention"): Estimate(0.76, None, None, 10),
        ("safegen", "asked", "removal"): Estimate(1.0, None, None, 10),
    }
    targets = [Requirement.parse(text) for text in ("retention>=0.97", "removal>=0.99")]
    missed, reached = outcomes(targets, Table([], [], [], figures, {}), "safegen")
    text = "95.0 % of the original's (76.0 % of 80.0 %), 2.0 points short"
    assert str(missed) == f"missed: retention>=0.97 on kept: {text}"
    assert str(reached) == "reached: removal>=0.99 on asked: 100 %"
