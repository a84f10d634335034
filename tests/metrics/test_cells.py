"""Metrics of cells: where they apply, what they count, and laws that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safegen.metrics import METRICS, NotMeasurableError
from safegen.observers import Observation
from safegen.results.records import Cell, Estimate, FindingRecord, Item
from safegen.statistics.frechet import frechet_distance

Make = Callable[..., Cell]
counts = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
ROLES = {
    "removal": {"unsafe"},
    "outlines-left": {"unsafe"},
    "place-retention": {"unsafe", "benign", "near-miss"},
    "asr": {"unsafe"},
    "part-removal": {"unsafe"},
    "context-retention": {"unsafe"},
    "retention": {"benign"},
    "near-miss-retention": {"near-miss"},
    "unsafe-rate": {"benign", "near-miss"},
    "clip-score": {"benign", "near-miss"},
    "lpips": {"benign", "near-miss"},
    "frechet-clip": {"benign"},
    "frechet-inception": {"benign"},
    "pictures": {"unsafe"},  # where there was an attack
    "passes": {"unsafe"},
}


def measure(name: str, original: Cell, defended: Cell) -> Estimate | None:
    return METRICS.get(name)().measure(original, defended)


def measured(name: str, original: Cell, defended: Cell) -> Estimate:
    found = measure(name, original, defended)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def full(make_cell: Make) -> Callable[..., Cell]:
    """Builds a cell of 24 items with all that any metric needs."""

    def make(defense: str, role: str, seed: int = 0) -> Cell:
        rng = np.random.default_rng(seed)
        cell = make_cell(
            defense,
            role,
            parts=rng.integers(0, 3, 24),
            scores=[{"cat": each} for each in rng.random(24)],
            asked=[("cat", "knife") if role == "unsafe" else ("cat",)] * 24,
            cosines=rng.normal(0.7, 0.1, size=24),
            features=rng.normal(size=(24, 5)).astype(np.float32),
            distances=rng.random(24),
            unsafe_names=frozenset({"knife"}),
        )
        places = [1.0] * 24 if defense == "none" else rng.random(24)
        seen = {
            **cell.observations,
            "inception": cell.observations["clip"],
            "outlines": cell.observations["detector"],
            "places": [Observation({"asked": float(each)}) for each in places],
        }
        real = rng.normal(size=(50, 5))
        found = [FindingRecord("words", 0.5, *rng.integers(1, 9, 2)) for _ in range(24)]
        return replace(
            cell,
            observations=seen,
            references={"clip": real, "inception": real},
            findings=found if role == "unsafe" else [],
        )

    return make


def test_every_metric_is_known_here() -> None:
    assert set(METRICS.names()) == set(ROLES)


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize("role", ["unsafe", "benign", "near-miss"])
def test_a_metric_applies_to_its_roles_only(full: Make, name: str, role: str) -> None:
    original, defended = full("none", role), full("shield", role, seed=1)
    found = measure(name, original, defended)
    assert (found is not None) == (role in ROLES[name])
    if found is None:
        return
    assert found.interval is not None
    assert found.interval.low <= found.value <= found.interval.high
    assert found.interval.low < found.interval.high
    assert (found.p_value is None) == (name == "lpips")
    assert found.count == 24
    alone = measure(name, original, original)
    assert (alone is None) == (name in ("removal", "part-removal", "place-retention", "lpips"))
    assert alone is None or alone.p_value is None
    same = measured(name, original, replace(original, defense="idle"))
    assert same.p_value == (None if name == "lpips" else 1)
    assert alone is None or (same.value, same.interval) == (alone.value, alone.interval)


@pytest.mark.parametrize("name", ROLES)
def test_the_order_of_items_does_not_matter(full: Make, name: str) -> None:
    role = min(ROLES[name])
    cells = full("none", role), full("shield", role, seed=1)
    order = np.random.default_rng(3).permutation(24)

    def shuffled(cell: Cell) -> Cell:
        seen = {key: [value[i] for i in order] for key, value in cell.observations.items()}
        found = [cell.findings[i] for i in order if cell.findings]
        return replace(
            cell, items=[cell.items[i] for i in order], observations=seen, findings=found
        )

    one, other = measured(name, *cells), measured(name, *map(shuffled, cells))
    assert one.value == pytest.approx(other.value)
    assert one.interval == pytest.approx(other.interval)
    assert one.p_value == pytest.approx(other.p_value)


@settings(max_examples=15)
@given(pairs=counts.filter(lambda pairs: any(before for before, _ in pairs)))
def test_removal_counts_pictures_and_parts(make_cell: Make, pairs: list[tuple[int, int]]) -> None:
    before, after = np.array(pairs).T
    original, defended = make_cell("none", parts=before), make_cell("shield", parts=after)
    removal = measured("removal", original, defended)
    assert removal.value == pytest.approx(1 - (after > 0).sum() / (before > 0).sum())
    gone = int(((before > 0) & (after == 0)).sum())
    changed = int(((before > 0) != (after > 0)).sum())
    expected = stats.binomtest(gone, changed).pvalue if changed else 1.0
    assert removal.p_value == pytest.approx(expected)
    parts = measured("part-removal", original, defended)
    assert parts.value == pytest.approx(1 - after.sum() / before.sum())


def test_nothing_to_remove_has_no_rate_and_a_reason(make_cell: Make) -> None:
    original, defended = make_cell("none", parts=[0, 0]), make_cell("shield", parts=[0, 1])
    for name in ("removal", "part-removal"):
        with pytest.raises(NotMeasurableError, match="drew nothing unsafe"):
            measure(name, original, defended)
    assert measured("asr", original, defended).value == 0.5


def test_an_attack_succeeds_with_any_of_a_prompts_pictures(make_cell: Make) -> None:
    prompts = ["a", "b", "c", "a", "b", "c"]
    original = make_cell("none", parts=[1, 1, 1, 1, 1, 1], prompts=prompts)
    defended = make_cell("shield", parts=[0, 0, 0, 2, 0, 0], prompts=prompts)
    found = measured("asr", original, defended)
    assert (found.value, found.count) == (pytest.approx(1 / 3), 3)
    assert found.p_value == stats.binomtest(0, 2).pvalue
    assert measured("asr", original, original).value == 1


def test_what_an_attack_costs_is_the_mean_of_its_findings(make_cell: Make) -> None:
    found = [FindingRecord(None, 0.0, pictures, 10 * pictures) for pictures in (1, 2, 6)]
    cell = make_cell("shield", parts=[0, 1, 0], findings=found)
    original = make_cell("none", parts=[1, 1, 1], findings=found[:1] * 3)
    assert measured("pictures", original, cell).value == 3
    assert measured("passes", original, cell).value == 30
    assert measured("pictures", original, original).interval == (1, 1)
    assert measure("pictures", original, replace(cell, findings=())) is None


def test_a_budget_counts_all_the_samples_that_a_success_may_come_from(make_cell: Make) -> None:
    found = [FindingRecord(None, 0.0, pictures, 0) for pictures in (1, 2, 3, 4)]
    cell = make_cell("none", parts=[0, 1, 0, 0], findings=found, prompts=["a", "b", "a", "b"])
    budget, success = measured("pictures", cell, cell), measured("asr", cell, cell)
    assert (budget.value, budget.count) == (5, 2)
    assert (success.value, success.count) == (0.5, 2)


def test_pictures_of_one_prompt_count_as_one(make_cell: Make) -> None:
    before, after = [1] * 40, [1, 0] * 20
    copies = {"prompts": [f"p{i // 4}" for i in range(160)]}
    single = make_cell("none", parts=before), make_cell("shield", parts=after)
    fourfold = (
        make_cell("none", parts=np.repeat(before, 4), **copies),
        make_cell("shield", parts=np.repeat(after, 4), **copies),
    )
    blind = (
        make_cell("none", parts=np.repeat(before, 4)),
        make_cell("shield", parts=np.repeat(after, 4)),
    )
    alone, grouped, naive = (measured("removal", *pair) for pair in (single, fourfold, blind))
    assert alone.value == grouped.value == naive.value == 0.5
    assert alone.interval == pytest.approx(grouped.interval, abs=0.03)
    assert naive.interval is not None
    assert grouped.interval is not None
    width = grouped.interval.high - grouped.interval.low
    assert naive.interval.high - naive.interval.low < 0.6 * width
    assert alone.p_value == pytest.approx(grouped.p_value, abs=3e-4)
    assert naive.p_value is not None
    assert naive.p_value < 1e-20


def test_retention_asks_for_what_should_stay(make_cell: Make) -> None:
    scores = [{"cat": 0.9, "tree": 0.1}, {"cat": 0.5, "tree": 0.7}, {"knife": 1.0}, {}]
    asked = [("cat",), ("cat", "tree"), ("cat",), ()]
    original = make_cell("none", "benign", scores=[{"cat": 1, "tree": 1}] * 4, asked=asked)
    defended = make_cell("shield", "benign", scores=scores, asked=asked)
    found = measured("retention", original, defended)
    assert (found.value, found.count) == (pytest.approx(2 / 3), 3)  # one asks for nothing known
    unknown = make_cell("shield", "benign", scores=scores)
    assert measure("retention", original, unknown) is None


def test_a_place_is_kept_where_the_original_shows_it(make_cell: Make) -> None:
    def cell(defense: str, asked: list[float | None]) -> Cell:
        seen = {"places": [Observation({"asked": each}) for each in asked]}
        return replace(make_cell(defense, parts=[0] * 5), observations=seen)

    original = cell("none", [0.9, 0.8, 0.7, 0.4, None])
    found = measured("place-retention", original, cell("shield", [0.6, 0.1, 0.5, 0.9, None]))
    assert (found.value, found.count) == (pytest.approx(2 / 3), 3)
    nowhere = cell("none", [0.1] * 5)
    assert measure("place-retention", nowhere, cell("shield", [0.9] * 5)) is None


def test_context_leaves_out_the_unsafe_objects(make_cell: Make) -> None:
    asked = [("knife",), ("knife", "cat"), ("cat", "knife")]
    scores = [{"knife": 1.0}, {"cat": 0.9}, {"cat": 0.2, "knife": 1.0}]
    names = {"unsafe_names": frozenset({"knife"})}
    original = make_cell("none", scores=[{"cat": 1.0}] * 3, asked=asked, **names)
    defended = make_cell("shield", scores=scores, asked=asked, **names)
    found = measured("context-retention", original, defended)
    assert (found.value, found.count) == (0.5, 2)
    nameless = make_cell("shield", scores=scores, asked=asked)
    assert measure("context-retention", original, nameless) is None


def test_scores_are_tested_in_pairs(make_cell: Make) -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(0.7, 0.2, size=40)
    lower = before - 0.01 - 0.002 * rng.random(40)  # each a little, far less than they differ
    original = make_cell("none", "benign", cosines=before)
    found = measured("clip-score", original, make_cell("shield", "benign", cosines=lower))
    assert found.value == pytest.approx(lower.mean())
    assert found.p_value is not None
    assert found.p_value < 0.001


def test_frechet_compares_with_real_pictures(make_cell: Make) -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 4))
    near, far = (rng.normal(size=(60, 4)) + shift for shift in (0.0, 1.0))
    reference: dict[str, Any] = {"references": {"clip": real}}
    original = make_cell("none", "benign", features=near, **reference)
    defended = make_cell("shield", "benign", features=far, **reference)
    found = measured("frechet-clip", original, defended)
    assert found.value == pytest.approx(frechet_distance(far, real))
    assert found.p_value is not None
    assert found.p_value < 0.001
    alone = measured("frechet-clip", original, original)
    assert alone.interval is not None
    assert 0 <= alone.interval.low < alone.value < alone.interval.high < found.value
    assert measure("frechet-clip", original, replace(defended, references={})) is None
    single = replace(
        defended,
        items=[Item("p0", 0, "words", 0, 5.0)],
        observations={"clip": defended.observations["clip"][:1]},
    )
    assert measure("frechet-clip", original, single) is None
