"""The summary: its figures, its keys, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegen.errors import SafegenError
from safegen.metrics._frechet import frechet_distance
from safegen.metrics.clip_score import clip_score
from safegen.report.records import BenignFeatures, PromptSetResult, RunFacts
from safegen.report.summary import build_summary, read_summary, write_summary
from safegen.statistics.intervals import wilson_interval


@pytest.fixture(scope="module")
def summary(
    facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures
) -> dict[str, Any]:
    return build_summary(facts, prompt_sets, features)


def test_figures_are_those_of_the_pictures(summary: dict[str, Any]) -> None:
    assert summary["removal_rate"] == {"explicit": pytest.approx(0.9), "implicit": 1.0}
    assert summary["unsafe_rate"] == {
        "explicit": 0.1, "implicit": 0.0, "benign": 0.0, "near_miss": 0.0
    }  # fmt: skip
    assert summary["retention"] == {"benign": 1.0, "near_miss": 0.8, "unsafe_context": 1.0}
    assert summary["retention_relative"]["near_miss"] == pytest.approx(0.8)
    assert set(summary["original"]["retention"].values()) == {1.0}
    assert summary["original"]["unsafe_rate"]["explicit"] == 1.0


def test_fidelity_is_that_of_the_features(
    summary: dict[str, Any], features: BenignFeatures
) -> None:
    for side, figures in (("original", summary["original"]), ("hardened", summary)):
        pictures = getattr(features, side)
        assert figures["clip_score"] == pytest.approx(clip_score(pictures, features.text))
        assert figures["frechet_distance"] == pytest.approx(
            frechet_distance(pictures, features.real)
        )
    ratio = summary["clip_score"] / summary["original"]["clip_score"]
    assert summary["clip_score_relative"] == pytest.approx(ratio)


def test_context_counts_only_unsafe_prompts_with_another_object(
    summary: dict[str, Any], prompt_sets: list[PromptSetResult]
) -> None:
    pairs = [c for s in prompt_sets[:2] for c in s.comparisons if len(c.asked) == 2]
    assert 0 < len(pairs) < 20
    assert summary["counts"]["retention"]["unsafe_context"] == len(pairs)


def test_a_lost_companion_lowers_the_context(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    comparisons = list(prompt_sets[0].comparisons)
    index = next(i for i, c in enumerate(comparisons) if c.wanted)
    blank = replace(comparisons[index].hardened, objects={})
    comparisons[index] = replace(comparisons[index], hardened=blank)
    sets = [replace(prompt_sets[0], comparisons=tuple(comparisons)), *prompt_sets[1:]]
    summary = build_summary(facts, sets)
    count = summary["counts"]["retention"]["unsafe_context"]
    assert summary["retention"]["unsafe_context"] == pytest.approx(1 - 1 / count)


def test_every_share_and_ratio_lies_in_its_interval(summary: dict[str, Any]) -> None:
    checked = 0
    for figures, intervals in (
        (summary, summary["intervals"]),
        (summary["original"], summary["intervals"]["original"]),
    ):
        for key, interval in intervals.items():
            if key in ("confidence", "original"):
                continue
            pairs = interval.items() if isinstance(interval, dict) else [(None, interval)]
            for group, (low, high) in pairs:
                value = figures[key][group] if group else figures[key]
                assert low <= value <= high
                checked += 1
    assert checked == 22
    assert summary["intervals"]["unsafe_rate"]["explicit"] == list(wilson_interval(1, 10))


def test_it_records_what_a_repetition_needs(summary: dict[str, Any], facts: RunFacts) -> None:
    assert summary["schema_version"] == 1
    assert summary["detector"]["file_hash"] == facts.detector.file_hash
    assert summary["classifier"]["threshold"] == 0.5
    assert summary["encoder"] == "tiny CLIP"
    assert summary["settings"]["edit"]["mixture"] == {"empty": 0.5}
    assert summary["seeds"] == {"edit": 7}
    assert summary["versions"] == {"safegen": "0.1.0"}
    assert (summary["edit_seconds"], summary["total_seconds"]) == (134.4, 390.0)


def test_it_is_the_same_twice(
    summary: dict[str, Any],
    facts: RunFacts,
    prompt_sets: list[PromptSetResult],
    features: BenignFeatures,
) -> None:
    assert build_summary(facts, prompt_sets, features) == summary


def test_without_features_there_is_no_fidelity(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    summary = build_summary(facts, prompt_sets)
    assert not {"clip_score", "frechet_distance"} & set(summary)


def test_the_classifiers_threshold_decides(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    assert facts.classifier is not None
    strict = replace(facts, classifier=replace(facts.classifier, threshold=0.95))
    retention = build_summary(strict, prompt_sets)["retention"]
    assert retention["benign"] == 0.0


def test_it_survives_the_file(tmp_path: Path, summary: dict[str, Any]) -> None:
    path = tmp_path / "run" / "summary.json"
    write_summary(path, summary)
    assert read_summary(path) == summary


def test_a_file_of_a_later_version_is_refused(tmp_path: Path, summary: dict[str, Any]) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary | {"schema_version": 99}))
    with pytest.raises(SafegenError, match="newer safegen"):
        read_summary(path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"schema_version": null}'])
def test_what_is_no_summary_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SafegenError, match=r"summary\.json is no summary"):
        read_summary(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_a_number_that_is_not_finite_is_an_error_that_names_it(
    facts: RunFacts, prompt_sets: list[PromptSetResult], value: float
) -> None:
    bad = replace(facts, settings={"edit": {"rate": [1.0, value]}})
    with pytest.raises(SafegenError, match=r"summary\.settings\.edit\.rate\.1 is (nan|inf)"):
        build_summary(bad, prompt_sets)


def test_numpy_numbers_become_json(facts: RunFacts, prompt_sets: list[PromptSetResult]) -> None:
    given = replace(facts, seeds={"edit": np.int64(7), "rate": np.float32(0.5), "where": Path("x")})
    seeds = build_summary(given, prompt_sets)["seeds"]
    assert json.loads(json.dumps(seeds)) == {"edit": 7, "rate": 0.5, "where": "x"}


def test_an_original_without_anything_unsafe_names_the_set(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    harmless = tuple(
        replace(c, original=replace(c.original, unsafe=False)) for c in prompt_sets[1].comparisons
    )
    sets = [prompt_sets[0], replace(prompt_sets[1], comparisons=harmless)]
    with pytest.raises(SafegenError, match=r"'implicit'.*nothing unsafe"):
        build_summary(facts, sets)


def test_sets_must_differ_and_one_must_be_unsafe(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    with pytest.raises(SafegenError, match="different names"):
        build_summary(facts, [prompt_sets[0], prompt_sets[0]])
    with pytest.raises(SafegenError, match="needs an unsafe"):
        build_summary(facts, prompt_sets[2:])
