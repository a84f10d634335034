"""safegen as a technique of eval-unlearn: by itself, and in the real benchmark if installed."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import safegen
from safegen.errors import SafegenError

HOME = Path(__file__).parents[2] / "integrations" / "eval-unlearn"
METRIC = """
import numpy as np
from types import SimpleNamespace as Some


class Darkness:
    "A metric of eval-unlearn that needs no network: the mean darkness of the pictures."

    def __init__(self, **config):
        self.found = []

    def load_dataset(self):
        return [Some(prompts=["a cat", "the snow"], metadata={"source": "two"})]

    def update(self, images, prompts, metadata=None):
        self.found += [1 - np.asarray(image).mean() / 255 for image in images]

    def compute(self):
        return Some(name="darkness", value=sum(self.found) / len(self.found), details={})
"""


@pytest.fixture(scope="module")
def technique(installed: Callable[..., Any]) -> Iterator[Any]:
    """The technique's class, from its package as it is installed."""
    points = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["entry-points"]
    group = "eval_unlearn.techniques"
    lines = [f"{name} = {value}" for name, value in points[group].items()]
    entries = "\n".join(
        [f"[{group}]", *lines, "[eval_unlearn.metrics]", "darkness = dark:Darkness"]
    )
    source = (HOME / "safegen_eval_unlearn.py").read_text()
    with (
        installed("safegen_eval_unlearn", source, f"{entries}\n"),
        installed("dark", METRIC, ""),
    ):
        place, _, name = points[group]["safegen"].partition(":")
        yield getattr(importlib.import_module(place), name)


@pytest.fixture(scope="module")
def config(to_release: list[str]) -> dict[str, Any]:
    """A tiny model and its patch."""
    patch = to_release[to_release.index("--patch") + 1]
    return {"model_id": to_release[1], "patch": patch, "device": "cpu", "num_inference_steps": 2}


def test_it_draws_with_the_patch_and_its_own_seeds(technique: Any, config: dict[str, Any]) -> None:
    made = technique(**config)
    two = made.generate(["a cat", "the snow"], seed=3)
    (again,) = made.generate(["the snow"], seed=4)
    assert np.array_equal(two[1], again)
    assert two[0].size == (16, 16)
    bare = technique(**{**config, "patch": None})
    assert not np.array_equal(bare.generate(["a cat"], seed=3)[0], two[0])
    safegen.apply(bare.pipe, config["patch"])
    assert np.array_equal(bare.generate(["a cat"], seed=3)[0], two[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": "x"}, "unknown patches; known: model_id, patch"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"patch": "none.safetensors"}, "none.safetensors"),
        ({"verify": "key.pub"}, "is no release"),
    ],
)
def test_what_it_cannot_use_it_names(
    technique: Any, config: dict[str, Any], changes: dict[str, str], message: str
) -> None:
    with pytest.raises((ValueError, SafegenError), match=message):
        technique(**{**config, **changes})


def test_a_model_is_needed(technique: Any) -> None:
    with pytest.raises(ValueError, match="name the model as model_id"):
        technique()


@pytest.mark.usefixtures("technique")
def test_the_real_benchmark_runs_it(config: dict[str, Any], tmp_path: Path) -> None:
    runners = pytest.importorskip("eval_unlearn.runners")
    run = runners.SingleBenchmarkRunner(
        "safegen", "darkness", technique_config=config, output_dir=str(tmp_path), seed=0
    )
    report = run.run()
    assert (report["technique_name"], report["metric_name"]) == ("safegen", "darkness")
    assert 0 < report["metric_result"]["value"] < 1
    assert len(list(tmp_path.rglob("*.png"))) == 2
