"""What a report opens with: what removes most, and where safegen is not ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from safegen.report.standing import kind_of, standing
from safegen.report.verdict import headline, safegen_verdict
from safegen.results.records import Table

Make = Callable[..., Table]


def opening_of(table: Table) -> str:
    """What a page of the table would open with."""
    found = standing(table)
    assert found is not None
    return f"{headline(found)} {safegen_verdict(found)}"


def test_it_opens_with_what_removes_most_and_where_safegen_is_not_ahead(
    page: str, read_page: Callable[[str], Any]
) -> None:
    assert read_page(page).standfirst == (
        "safegen+sld-max removes most: 99.1 % of the unsafe pictures on explicit and implicit "
        "prompts, with a retention of 74.2 % on benign and near-miss ones (undefended 93.0 %). "
        "safegen alone removes 98.3 %, with a retention of 90.6 %, and is not ahead everywhere: "
        "on explicit prompts it removes 98.3 % and filtered 98.3 %."
    )


def test_it_says_who_keeps_more_only_of_those_that_remove_enough(
    table: Table, changed: Make
) -> None:
    kept = changed(table, "uce", "near-miss", "near-miss-retention", 0.95)
    kept = changed(kept, "sld-weak", "near-miss", "near-miss-retention", 0.99)
    opening = opening_of(kept)
    assert "uce (94.4 %) keeps more, and removes at least half as much." in opening
    assert "sld-weak" not in opening


def test_it_says_so_where_safegen_is_ahead(table: Table, changed: Make) -> None:
    ahead = changed(table, "filtered", "explicit", "removal", 0.9)
    assert opening_of(ahead).endswith(
        "safegen alone removes 98.3 %, with a retention of 90.6 %, and is ahead of each of the 9 "
        "baselines in removal on explicit and on implicit prompts, and none that removes at least "
        "half as much keeps more."
    )


def test_it_does_not_say_the_same_figures_twice(make_table: Make) -> None:
    assert opening_of(make_table(("none", "uce", "safegen"))) == (
        "safegen removes most: 98.3 % of the unsafe pictures on explicit and implicit prompts, "
        "with a retention of 90.6 % on benign and near-miss ones (undefended 93.0 %). "
        "It is ahead of the one baseline in removal on explicit and on implicit prompts, and none "
        "that removes at least half as much keeps more."
    )


def test_one_defense_is_not_said_to_remove_most(make_table: Make) -> None:
    assert opening_of(make_table(("none", "safegen"))) == (
        "safegen removes 98.3 % of the unsafe pictures on explicit and implicit prompts, with a "
        "retention of 90.6 % on benign and near-miss ones (undefended 93.0 %). "
    )


def test_without_safegen_there_is_no_word_of_it(make_table: Make) -> None:
    assert opening_of(make_table(("none", "sld-max", "uce"))) == (
        "uce removes most: 53.6 % of the unsafe pictures on explicit and implicit prompts, with a "
        "retention of 87.5 % on benign and near-miss ones (undefended 93.0 %). "
    )


def test_defenses_that_remove_as_much_are_named_together(make_table: Make, changed: Make) -> None:
    both = changed(make_table(("none", "filtered", "uce")), "uce", "explicit", "removal", 1.0)
    both = changed(both, "uce", "implicit", "removal", 1.0)
    both = changed(changed(both, "filtered", "explicit", "removal", 1.0),
                   "filtered", "implicit", "removal", 1.0)  # fmt: skip
    assert opening_of(both).startswith("filtered and uce each remove most: 100 %")
    assert "a retention of 89.8 % and 87.5 %" in opening_of(both)


def test_what_a_defense_is_called_does_not_change_what_it_is(table: Table) -> None:
    names = {"safegen": "first", "uce": "safegen-like", "safegen+sld-max": "stack"}

    def renamed(key: tuple[str, str, str]) -> tuple[str, str, str]:
        return names.get(key[0], key[0]), *key[1:]

    other = replace(
        table,
        defenses=[replace(each, name=names.get(each.name, each.name)) for each in table.defenses],
        figures={renamed(key): each for key, each in table.figures.items()},
    )
    found = standing(other)
    assert found is not None
    assert found.ours == "first"
    kinds = {each.name: kind_of(each) for each in other.defenses}
    assert found.kinds == kinds
    assert {name for name, kind in kinds.items() if kind == "safegen"} == {"first", "stack"}
    assert opening_of(other) == (
        opening_of(table).replace("safegen+sld-max", "stack").replace("safegen", "first")
    )
