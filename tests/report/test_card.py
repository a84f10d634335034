"""The model card: metadata the hub reads, and text a person can act on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from safegen.report.card import CardDecision, CardSubject, card_figures, write_card
from safegen.results.records import DefenseRecord, Estimate, PromptSetRecord, Table
from safegen.statistics.intervals import Interval

SUBJECT = CardSubject("lab", "weapons", "weapons.safetensors")
HOSTILE = "<script>*a*</script> [b](c) `d` |\n# e"


def table(name: str = "explicit", key: str = "mixture", value: str = "0.5") -> Table:
    return Table(
        [DefenseRecord("none"), DefenseRecord("safegen", {"settings": {key: value}})],
        [PromptSetRecord(name, "unsafe"), PromptSetRecord("benign", "benign")],
        ["removal", "asr", "retention"],
        {
            ("none", name, "asr"): Estimate(0.9, Interval(0.8, 0.95), None, 64),
            ("safegen", name, "asr"): Estimate(0.09, Interval(0.0, 0.1), 0.001, 64),
            ("safegen", name, "removal"): Estimate(0.9, Interval(0.85, 1.0), 0.001, 64),
            ("safegen", "benign", "retention"): Estimate(0.8, None, None, 60),
            ("none", "benign", "retention"): Estimate(0.9, None, None, 60),
        },
        {"observers": {"detector": {"name": name, "version": "1", "threshold": 0.5}}},
    )


def card(subject: CardSubject = SUBJECT, of: Table | None = None) -> ModelCard:
    return write_card(subject, card_figures(of or table(), "safegen"))


def test_it_reads_back_with_the_figures_as_model_index() -> None:
    made = card(replace(SUBJECT, base_model="someone/lab", license="openrail"))
    read = ModelCard(str(made))
    assert str(read) == str(made)
    assert read.data.library_name == "diffusers"
    assert read.data.pipeline_tag == "text-to-image"
    assert read.data.base_model == "someone/lab"
    assert read.data.license == "openrail"
    figures = {(r.metric_type, r.dataset_name): r.metric_value for r in read.data.eval_results}
    assert figures == {
        ("removal", "explicit"): 0.9, ("asr", "explicit"): 0.09, ("retention", "benign"): 0.8,
    }  # fmt: skip


def test_nothing_unknown_is_claimed() -> None:
    assert "license:" not in str(card())
    assert "base_model:" not in str(card())
    assert "it was not known" in card().text
    assert "it was not known" not in card(replace(SUBJECT, license="mit")).text


def test_it_says_how_to_use_it_and_what_it_does_not_show() -> None:
    text = card(replace(SUBJECT, base_model="a/b")).text
    assert "safegen apply a/b weapons.safetensors --out hardened" in text
    assert 'safegen.apply(pipe, "weapons.safetensors")' in text
    assert "| ASR | explicit | 90.0 % (80.0–95.0) | 9.0 % (0–10.0) | 64 |" in text
    assert "| removal | explicit | – | 90.0 % (85.0–100) | 64 |" in text
    assert "detector `explicit`" in text
    assert "| settings.mixture | `0.5` |" in text


@pytest.mark.parametrize("place", ["concept", "model", "patch", "set", "key", "value"])
def test_no_name_means_anything_in_markdown_or_html(place: str) -> None:
    subject = SUBJECT if place in ("set", "key", "value") else replace(SUBJECT, **{place: HOSTILE})
    of = {
        "set": table(name=HOSTILE), "key": table(key=HOSTILE), "value": table(value=HOSTILE),
    }.get(place)  # fmt: skip
    text = card(subject, of).text
    prose = re.sub(r"(?s)```.*?```|(?<!\\)`[^`\n]*`", "", text)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[b|(?<!\\)\*a", prose)
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {3, 6}
    assert "\n# e" not in prose


def test_a_reason_of_the_decision_is_text() -> None:
    decision = CardDecision("fail", (HOSTILE, "asr<=0.1"))
    text = write_card(SUBJECT, card_figures(table(), "safegen"), decision).text
    assert r"- \<script\>\*a\*\</script\> \[b\](c) \`d\` \| # e" in text.splitlines()


@pytest.mark.parametrize("place", ["model", "patch"])
def test_no_name_ends_a_block_of_code(place: str) -> None:
    text = card(replace(SUBJECT, **{place: "a\n```\n<script>"})).text
    assert [line for line in text.splitlines() if line.startswith(("```", "<"))] == [
        "```bash", "```", "```python", "```",
    ]  # fmt: skip


def test_names_with_spaces_and_quotes_stay_usable() -> None:
    text = card(replace(SUBJECT, model='my "own" model')).text
    assert "safegen apply 'my \"own\" model' weapons.safetensors" in text
    assert r'load_pipeline("my \"own\" model")' in text
