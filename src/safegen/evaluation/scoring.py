"""Scoring: the table of an evaluation from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from safegen.errors import SafegenError
from safegen.metrics import METRICS, Metric, NotMeasurableError
from safegen.results.records import (
    ORIGINAL,
    Cell,
    DefenseRecord,
    Estimate,
    PromptSetRecord,
    Table,
)


class Cells(Protocol):
    """Cells of an evaluation, possibly read on demand."""

    def __getitem__(self, key: tuple[str, str], /) -> Cell:
        """Return the cell of (defense, prompt set)."""


def score(
    cells: Cells,
    defenses: Sequence[DefenseRecord],
    prompt_sets: Sequence[PromptSetRecord],
    provenance: Mapping[str, Any] | None = None,
) -> Table:
    """Compute all figures that the observations allow; a note says why a set lacks one, such as
    the removal rate if the original draws nothing unsafe.

    Memory holds only the original's and one defense's cell of a prompt set at a time.

    Args:
        cells: cells by (defense, prompt set), including the original model's.
        defenses: rows of the table.
        prompt_sets: prompt sets in the order of the table.
        provenance: see ``Table``.

    Raises:
        SafegenError: two cells of a prompt set have different items.
    """
    metrics = known_metrics()
    figures: dict[tuple[str, str, str], Estimate] = {}
    missing: dict[tuple[str, str], str] = {}
    for prompt_set in prompt_sets:
        original = cells[ORIGINAL, prompt_set.name]
        for defense in defenses:
            is_original = defense.name == ORIGINAL
            cell = original if is_original else cells[defense.name, prompt_set.name]
            _check_same_items(original, cell)
            for name, metric in metrics.items():
                if not set(metric.observers) <= set(cell.observations):
                    continue
                try:
                    estimate = metric.measure(original, cell)
                except NotMeasurableError as error:
                    if prompt_set.attack is None:  # an attack that fails is a result
                        missing[name, prompt_set.name] = str(error)
                    continue
                if estimate is not None:
                    figures[defense.name, prompt_set.name, name] = estimate
    measured = [name for name in metrics if any(key[2] == name for key in figures)]
    notes = dict.fromkeys(f"{place}: {reason}" for (_, place), reason in missing.items())
    return Table(defenses, prompt_sets, measured, figures, provenance or {}, tuple(notes))


def known_metrics() -> dict[str, Metric]:
    """Return all metrics by name, from left to right."""
    made = {name: METRICS.get(name)() for name in METRICS.names()}
    return dict(sorted(made.items(), key=lambda pair: (pair[1].rank, pair[0])))


def _check_same_items(original: Cell, defended: Cell) -> None:
    pairs = zip(original.items, defended.items, strict=False)
    same = all(one is other or one == other for one, other in pairs)
    if len(original.items) != len(defended.items) or not same:
        raise SafegenError(
            f"{defended.defense} and {original.defense} were not evaluated on the same items of "
            f"{defended.prompt_set}, so they cannot be compared; evaluate both in one run"
        )
