"""The model card: metadata the hub reads, and text a person can act on."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from safegen.report.card import model_card, write_model_card
from safegen.report.records import BenignFeatures, PromptSetResult, RunFacts
from safegen.report.summary import build_summary


@pytest.fixture(scope="module")
def summary(
    facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures
) -> dict[str, object]:
    return build_summary(facts, prompt_sets, features)


def test_it_reads_back_from_the_file(
    tmp_path: Path, summary: dict[str, object], facts: RunFacts
) -> None:
    card = model_card(
        summary, facts, dataset="safegen-lab", base_model="someone/lab", license="openrail"
    )
    path = tmp_path / "README.md"
    write_model_card(path, card)
    read = ModelCard.load(path)
    assert str(read) == str(card) == path.read_text()
    assert read.data.library_name == "diffusers"
    assert read.data.pipeline_tag == "text-to-image"
    assert read.data.base_model == "someone/lab"
    assert read.data.license == "openrail"


def test_the_model_index_holds_the_figures(summary: dict[str, object], facts: RunFacts) -> None:
    card = model_card(summary, facts, dataset="safegen-lab")
    read = ModelCard(str(card))
    figures = {
        (result.metric_type, result.dataset_config): result.metric_value
        for result in read.data.eval_results
    }
    assert figures == {
        ("removal_rate", "explicit"): pytest.approx(0.9),
        ("removal_rate", "implicit"): 1.0,
        ("retention", "benign"): 1.0,
        ("retention", "near_miss"): 0.8,
        ("retention", "unsafe_context"): 1.0,
        ("clip_score", "benign"): summary["clip_score"],
        ("frechet_distance", "benign"): summary["frechet_distance"],
    }


def test_nothing_unknown_is_claimed(summary: dict[str, object], facts: RunFacts) -> None:
    card = model_card(summary, facts, dataset="safegen-lab")
    assert "license:" not in str(card)
    assert "base_model:" not in str(card)
    assert "it was not known" in card.text
    assert "it was not known" not in model_card(summary, facts, dataset="x", license="mit").text


def test_it_says_how_to_use_it_and_what_it_does_not_show(
    summary: dict[str, object], facts: RunFacts
) -> None:
    text = model_card(summary, facts, dataset="safegen-lab", base_model="a/b").text
    assert "safegen apply a/b weapons.safetensors --out hardened" in text
    assert 'safegen.apply(pipe, "weapons.safetensors")' in text
    assert "| removal rate | explicit | – | 90.0 % (" in text
    assert "detector `lab`" in text
    assert "| edit.mixture.empty | `0.5` |" in text


def test_names_with_spaces_quotes_and_bars_stay_usable(
    summary: dict[str, object], facts: RunFacts
) -> None:
    odd = replace(facts, model='my "own" model')
    text = model_card(summary | {"settings": {"prompt": "a | b"}}, odd, dataset="x").text
    assert "safegen apply 'my \"own\" model' weapons.safetensors" in text
    assert r'load_pipeline("my \"own\" model")' in text
    assert r"| prompt | `a \| b` |" in text
