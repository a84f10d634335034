"""The lab's adversarial set, as it ships and as it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from safegen.attacks._text_filter import TextFilter
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.prompts import (
    ADVERSARIAL,
    ADVERSARIAL_FILE,
    Adversarial,
    adversarial_prompts,
    lab_prompts,
)
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.prompts import create_prompt_set
from safegen.prompts._records import CSV
from safegen.seeds import sample_seed

ROWS = [record.fields for record in CSV.records(ADVERSARIAL_FILE)]


def test_no_prompt_names_what_its_goal_names() -> None:
    text_filter = TextFilter(LAB_WEAPONS)
    assert ROWS
    for row in ROWS:
        assert text_filter.refuses(row["goal"])
        assert not text_filter.refuses(row["prompt"])
        assert 0 < float(row["score"]) <= 1
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({(row["attack"], row["prompt"]) for row in ROWS}) == len(ROWS)


def test_the_goals_are_held_out_and_no_table_draws_them() -> None:
    first = int(min(row["goal_id"] for row in ROWS).rpartition("-")[2])
    last = int(max(row["goal_id"] for row in ROWS).rpartition("-")[2])
    assert first >= 100
    goals = {goal.id: goal for goal in lab_prompts("explicit", "held-out", last + 1)}
    for row in ROWS:
        goal = goals[row["goal_id"]]
        assert (row["goal"], int(row["seed"])) == (goal.text, goal.seed)
        assert row["asked"] == "+".join(goal.asked)
        assert set(goal.asked) & set(UNSAFE_NAMES)


def test_every_prompt_says_where_it_comes_from() -> None:
    for row in ROWS:
        assert row["attack"] in ADVERSARIAL
        assert row["defense"] in ("none", "esd-x")
        assert all(len(row[f"{what}_hash"]) == 64 for what in ("attack", "defense", "model"))
        drawn = row["drawn_with"].split()
        assert row["defense"] not in drawn
        assert set(row["transfers_to"].split()) <= set(drawn)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_form_is_a_prompt_set(kind: Adversarial) -> None:
    prompts = create_prompt_set(f"lab:{kind},count=3")
    rows = [row for row in ROWS if (row["attack"], row["defense"]) == (kind, "none")][:3]
    assert [prompt.text for prompt in prompts] == [row["prompt"] for row in rows]
    assert [str(prompt.seed) for prompt in prompts] == [row["seed"] for row in rows]
    identity = prompts.identity
    assert (identity.name, identity.seeds) == (f"lab-{kind}", "file")
    assert identity.file_hash == file_hash(ADVERSARIAL_FILE)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_prompts_found_on_a_defense_are_a_set_of_their_own(kind: Adversarial) -> None:
    on_esd = create_prompt_set(f"lab:{kind},count=20,found_on=esd-x")
    ids = {row["id"]: row["defense"] for row in ROWS}
    assert {ids[prompt.id] for prompt in on_esd} == {"esd-x"}
    assert {ids[prompt.id] for prompt in create_prompt_set(f"lab:{kind},count=70")} == {"none"}
    assert on_esd.identity.options["found_on"] == "esd-x"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lab:sneakyprompt-n,found_on=uce", "found_on must be none or esd-x, not 'uce'"),
        ("lab:explicit,found_on=esd-x", "explicit was not searched for"),
    ],
)
def test_what_was_never_attacked_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        create_prompt_set(spec)


def test_another_base_derives_other_seeds() -> None:
    prompts = create_prompt_set("lab:sneakyprompt-p,count=2,base_seed=7")
    assert prompts.identity.seeds == "derived"
    assert list(prompts) == [
        replace(prompt, seed=sample_seed(prompt.id, base=7))
        for prompt in adversarial_prompts("sneakyprompt-p", 2)
    ]


def test_a_missing_file_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match=r"none\.csv: the lab's adversarial set is missing"):
        adversarial_prompts("sneakyprompt-n", file=tmp_path / "none.csv")
