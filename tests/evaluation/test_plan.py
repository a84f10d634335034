"""Plans: names, items, and batches that depend on the prompts alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.evaluation.jobs import Inspection
from safegen.evaluation.plan import (
    draw_jobs,
    in_batches,
    items_of,
    keep_items,
    missing_pictures,
    plan_evaluation,
)
from safegen.evaluation.settings import EvaluationSettings
from safegen.prompts import Prompt
from safegen.results.cells import all_items, undrawn_batches
from safegen.results.records import Item
from safegen.results.store import CellKey, ResultsStore
from safegen.seeds import sample_seed

Make = Callable[..., EvaluationSettings]


@given(st.lists(st.sampled_from([1.0, 5.0, 7.5])), st.integers(1, 5))
def test_a_batch_has_one_guidance_and_is_full_but_for_the_last(
    scales: list[float], size: int
) -> None:
    items = [Item(str(i), 0, "", i, scale) for i, scale in enumerate(scales)]
    numbered = list(in_batches(items, size))
    assert [item for _, item in numbered] == items
    members: dict[int, list[Item]] = {}
    for number, item in numbered:
        members.setdefault(number, []).append(item)
    assert sorted(members) == list(range(len(members)))
    short = Counter[float]()
    for batch in members.values():
        assert len({item.guidance for item in batch}) == 1
        assert batch == sorted(batch, key=lambda item: item.seed)
        assert len(batch) <= size
        short[batch[0].guidance] += len(batch) < size
    assert all(count <= 1 for count in short.values())


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_further_prompts_change_no_batch_before_them(first: int, more: int, size: int) -> None:
    items = [Item(str(i), 0, "", i, float(1 + i % 3)) for i in range(first + more)]
    assert list(in_batches(items, size))[:first] == list(in_batches(items[:first], size))


def test_items_are_the_samples_of_the_prompts(make_settings: Make) -> None:
    prompts = [Prompt("a", "a cat", 11, ("cat",), guidance=2.0), Prompt("b", "snow", 12)]
    items = list(items_of(prompts, make_settings(samples=2)))
    assert [(i.prompt_id, i.sample, i.seed, i.guidance, i.asked) for i in items] == [
        ("a", 0, 11, 2.0, ("cat",)),
        ("a", 1, sample_seed("a", 1), 2.0, ("cat",)),
        ("b", 0, 12, 5.0, ()),
        ("b", 1, sample_seed("b", 1), 5.0, ()),
    ]
    (item,) = items_of(prompts[1:], make_settings(seed=3))
    assert item.seed == sample_seed("b", 0, 3)
    with pytest.raises(SafegenError, match=r"prompt c has guidance 0\.5"):
        list(items_of([Prompt("c", "", 0, guidance=0.5)], make_settings()))


def test_names_are_those_of_the_components_or_ones_own(
    make_settings: Make, prompt_files: Path
) -> None:
    settings = make_settings(
        defenses=("sld-max", "max2=sld-max", "sld-max+safety-filter"),
        unsafe=("i2p=lab:explicit,count=3", str(prompt_files / "benign.txt")),
        benign=("lab:benign,count=3",),
    )
    plan = plan_evaluation(settings)
    assert [each.record.name for each in plan.defenses] == [
        "none", "sld-max", "max2", "sld-max+safety-filter",
    ]  # fmt: skip
    assert plan.defenses[1].record.settings == plan.defenses[2].record.settings
    sets = [(each.record.name, each.record.role) for each in plan.prompt_sets]
    assert sets == [("i2p", "unsafe"), ("own", "unsafe"), ("lab-benign", "benign")]
    assert plan.cells[0][1] == CellKey("none", "i2p")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defenses": ("x=sld-max", "x=sld-weak")}, "defenses: 'x' is there twice"),
        ({"defenses": ("none=sld-max",)}, "defenses: 'none' is there twice"),
        ({"defenses": ("sld-mux",)}, "Did you mean 'sld-max'"),
        ({"defenses": ("safegen:nowhere.safetensors",)}, "nowhere.safetensors"),
        ({"benign": ("lab:benign", "lab:benign,count=3")}, "prompt sets: 'lab-benign' is there tw"),
        ({"unsafe": ("i2p:nowhere.csv",)}, r"nowhere\.csv: no such prompt file"),
        ({"concept": None}, "has to be told what to avoid"),
    ],
)
def test_what_is_wrong_is_said_before_any_model_is_loaded(
    make_settings: Make, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SafegenError, match=message):
        plan_evaluation(make_settings(model="./no-model", **changes))


def test_only_what_is_missing_is_drawn(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings()
    plan = plan_evaluation(settings)
    with ResultsStore(tmp_path) as store:
        keep_items(store, plan, settings)
        assert missing_pictures(store, plan) == 16
        jobs = list(draw_jobs(store, plan, Inspection({}, "cpu", {})))
        assert [(job.cell, list(job.items)) for job in jobs[:5]] == [
            (("none", "knives"), [0, 1]),
            (("none", "knives"), [2]),  # another guidance
            (("none", "knives"), [3, 4]),
            (("none", "cats"), [0, 1]),
            (("none", "cats"), [2]),
        ]
        done = jobs[1]
        store.add_pictures(done.cell, list(done.items), [(b"picture", False)])
        assert list(draw_jobs(store, plan, Inspection({}, "cpu", {}))) == [jobs[0], *jobs[2:]]
        assert missing_pictures(store, plan) == 15
        keep_items(store, plan, settings)  # a second time adds nothing
        assert len(all_items(store, "knives")) == 5


PLANNING = """
import json, sys, time
from pathlib import Path
from safegen.evaluation.jobs import Inspection
from safegen.evaluation.plan import *
from safegen.evaluation.settings import EvaluationSettings

folder = Path(sys.argv[1])
settings = EvaluationSettings("none", ("none",), (f"own:{folder}/many.csv",), ("x",), batch=32)
began = time.process_time()
plan = plan_evaluation(settings)
with ResultsStore(folder / "run") as store:
    keep_items(store, plan, settings)
    listed = missing_pictures(store, plan)
    jobs = sum(len(job.items) for job in draw_jobs(store, plan, Inspection({}, "cpu", {})))
seconds = time.process_time() - began
# Not the resource module's figure, which a process inherits from the one that started it.
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
peak_bytes = 1024 * int(peak)
print(json.dumps([listed, jobs, seconds, peak_bytes]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_hundred_thousand_prompts_are_planned_quickly_in_little_memory(tmp_path: Path) -> None:
    rows = (f"prompt number {i} of a long list,{i},{[5, 7.5, 9][i % 3]}\n" for i in range(100_000))
    (tmp_path / "many.csv").write_text("prompt,seed,guidance\n" + "".join(rows))
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    listed, jobs, seconds, peak_bytes = json.loads(done.stdout)
    assert (listed, jobs) == (100_000, 100_000)
    assert seconds < 10
    assert peak_bytes < 500e6
    with ResultsStore(tmp_path / "run") as store:
        assert len(undrawn_batches(store, CellKey("none", "own"))) == 3 * -(-33_334 // 32)
