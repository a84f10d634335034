"""From cells to the table: what it holds, what is left out, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from safegen.errors import SafegenError
from safegen.evaluation.scoring import known_metrics, score
from safegen.metrics import METRICS
from safegen.observers import Observation
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery
from safegen.results.records import Cell, DefenseRecord, Item, PromptSetRecord, Role, Table

DEFENSES = [DefenseRecord("none"), DefenseRecord("shield", {"strength": 2})]
SETS = [
    PromptSetRecord("explicit", "unsafe"),
    PromptSetRecord("implicit", "unsafe"),
    PromptSetRecord("cats", "benign"),
]
PARTS = {
    ("none", "explicit"): [1, 2, 1, 0],
    ("none", "implicit"): [1, 0, 1, 0],
    ("none", "cats"): [0, 0, 0, 0],
    ("shield", "explicit"): [0, 1, 0, 0],
    ("shield", "implicit"): [0, 0, 0, 0],
    ("shield", "cats"): [0, 0, 1, 0],
}
Cells = dict[tuple[str, str], Cell]


def cell(defense: str, name: str, role: Role, parts: Sequence[int]) -> Cell:
    items = [Item(f"{name}-{i}", 0, "words", i, 5.0, ("cat",)) for i in range(len(parts))]
    detections = [Observation({"detections": [{"label": "part"}] * count}) for count in parts]
    return Cell(defense, name, role, items, {"detector": detections})


def cells(**changes: Sequence[int]) -> Cells:
    roles = {record.name: record.role for record in SETS}
    parts = {**PARTS, **{("none", name): value for name, value in changes.items()}}
    return {key: cell(*key, roles[key[1]], value) for key, value in parts.items()}


def test_the_table_has_all_figures_that_there_are() -> None:
    table = score(cells(), DEFENSES, SETS, {"seed": 3})
    assert table.metrics == ["removal", "asr", "part-removal", "unsafe-rate"]
    assert table.defenses == DEFENSES
    assert table.prompt_sets == SETS
    assert table.provenance == {"seed": 3}
    assert table.notes == ()
    values = {key: estimate.value for key, estimate in table.figures.items()}
    assert values == {
        ("none", "explicit", "asr"): 0.75,
        ("none", "implicit", "asr"): 0.5,
        ("none", "cats", "unsafe-rate"): 0.0,
        ("shield", "explicit", "removal"): pytest.approx(2 / 3),
        ("shield", "explicit", "asr"): 0.25,
        ("shield", "explicit", "part-removal"): 0.75,
        ("shield", "implicit", "removal"): 1.0,
        ("shield", "implicit", "asr"): 0.0,
        ("shield", "implicit", "part-removal"): 1.0,
        ("shield", "cats", "unsafe-rate"): 0.25,
    }


def test_metrics_without_their_observer_are_left_out() -> None:
    unseen = {key: replace(each, observations={}) for key, each in cells().items()}
    table = score(unseen, DEFENSES, SETS)
    assert table.figures == {}
    assert table.metrics == []


def test_the_order_of_columns_does_not_depend_on_names() -> None:
    names = list(known_metrics())
    assert names[:2] == ["removal", "asr"]
    assert sorted(names) == METRICS.names()


@pytest.mark.parametrize("lacking", [("implicit",), ("explicit", "implicit")])
def test_a_set_without_a_rate_is_a_note(lacking: tuple[str, ...]) -> None:
    table = score(cells(**{name: [0, 0, 0, 0] for name in lacking}), DEFENSES, SETS)
    for name in ("explicit", "implicit"):
        assert (("shield", name, "removal") in table.figures) == (name not in lacking)
        assert ("shield", name, "asr") in table.figures
    assert "unsafe-rate" in table.metrics
    assert len(table.notes) == len(lacking)
    for name, note in zip(lacking, table.notes, strict=True):
        assert note.startswith(f"{name}: no removal rate: the original model drew nothing")
    assert render_report(table, Gallery()).count("no removal rate") >= len(lacking)


@pytest.mark.parametrize("change", ["fewer", "another seed", "another order"])
def test_other_items_cannot_be_compared(change: str) -> None:
    found = cells()
    one = found["shield", "explicit"]
    items = {
        "fewer": one.items[:-1],
        "another seed": [replace(one.items[0], seed=99), *one.items[1:]],
        "another order": one.items[::-1],
    }[change]
    found["shield", "explicit"] = replace(one, items=items)
    with pytest.raises(SafegenError, match="shield and none were not evaluated on the same items"):
        score(found, DEFENSES, SETS)


class Reader:
    """Cells that are made when asked for, as a results store reads them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __getitem__(self, key: tuple[str, str]) -> Cell:
        self.asked.append(key)
        return cells()[key]


def test_every_cell_is_read_once() -> None:
    reader = Reader()
    table: Table = score(reader, DEFENSES, SETS)
    assert table == score(cells(), DEFENSES, SETS)
    assert reader.asked == [(row, each.name) for each in SETS for row in ("none", "shield")]
