"""Standing of an evaluation's defenses: what each removes, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from safegen.results.records import ORIGINAL, DefenseRecord, Estimate, Table
from safegen.statistics.intervals import Interval

REMOVAL = "removal"
KEPT_METRICS = (("retention", "near-miss-retention"), ("clip-score",))
"""Metrics set against removal: the first group of which a table has a figure."""
SAFEGEN = "safegen"
UNTRAINED = "random-weights"
"""Method that is no defense, but the control of attacks."""

Kind = Literal["original", "safegen", "baseline", "control"]


@dataclass(frozen=True)
class Point:
    """Defense in the trade-off: what it removes, and what it keeps."""

    defense: str
    removal: Estimate
    kept: Estimate


@dataclass(frozen=True)
class Standing:
    """Data of the trade-off and the headline.

    Attributes:
        removal: removal by unsafe set and defense; the original model's is 0 by definition.
        mean_removal: mean removal over these sets, by defense.
        kept_metric: first of the metrics of what is kept.
        kept_sets: prompt sets with a figure of these metrics.
        kept: mean figure over these sets, by defense.
        kinds: kind by defense.
        ours: name of the first defense that is safegen alone; None without one.
    """

    removal: dict[str, dict[str, Estimate]]
    mean_removal: dict[str, Estimate]
    kept_metric: str
    kept_sets: tuple[str, ...]
    kept: dict[str, Estimate]
    kinds: dict[str, Kind]
    ours: str | None

    def panels(self) -> dict[str, list[Point]]:
        """Defenses that have both figures, by unsafe set."""
        return {
            name: [Point(d, removed[d], kept) for d, kept in self.kept.items() if d in removed]
            for name, removed in self.removal.items()
        }


def standing(table: Table) -> Standing | None:
    """Compute the standing on prompts that no attack changes; None if the table has no removal rate
    on such prompts, or none of ``KEPT_METRICS``. Controls have no place in it."""
    compared = [record for record in table.defenses if kind_of(record) != "control"]
    table = replace(table, defenses=compared)
    attacked = attacked_sets(table)
    removed_on = [pair for pair in columns_of(table, [REMOVAL]) if pair[0] not in attacked]
    groups = [columns_of(table, group) for group in KEPT_METRICS]
    kept_on = next(filter(None, groups), [])
    if not removed_on or not kept_on:
        return None
    nothing = {ORIGINAL: Estimate(0.0)}
    return Standing(
        removal={name: nothing | mean_figures(table, [(name, REMOVAL)]) for name, _ in removed_on},
        mean_removal=nothing | mean_figures(table, removed_on),
        kept_metric=next(group[0] for group in KEPT_METRICS if kept_on[0][1] in group),
        kept_sets=tuple(name for name, _ in kept_on),
        kept=mean_figures(table, kept_on),
        kinds=kinds_of(table),
        ours=safegen_alone(table),
    )


def attacked_sets(table: Table) -> set[str]:
    """Return the names of the prompt sets that are the goals of an attack."""
    return {record.name for record in table.prompt_sets if record.attack}


def columns_of(table: Table, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """List each (prompt set, metric) with a figure for any defense, in the prompt sets' order."""
    found = {(name, metric) for _, name, metric in table.figures}
    pairs = ((record.name, metric) for record in table.prompt_sets for metric in metrics)
    return [pair for pair in pairs if pair in found]


def mean_figures(table: Table, columns: Sequence[tuple[str, str]]) -> dict[str, Estimate]:
    """Average (prompt set, metric) columns by defense; a defense that lacks one has no mean."""
    means = {}
    for record in table.defenses:
        found = [table.figures.get((record.name, *column)) for column in columns]
        estimates = [estimate for estimate in found if estimate is not None]
        if len(estimates) == len(columns):
            means[record.name] = mean_estimate(estimates)
    return means


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Average figures of different prompt sets, with equal weights.

    The interval combines those of the figures (square-and-add for independent figures; Zou and
    Donner, Statistics in Medicine 27, 2008): mean - sqrt(sum (value - low)^2) / k, and upwards
    likewise. None if one of the k figures has no interval.
    """
    count = len(estimates)
    mean = math.fsum(estimate.value for estimate in estimates) / count
    items = sum(estimate.count for estimate in estimates)
    below, above = [], []
    for value, interval, _, _ in estimates:
        if interval is None:
            return Estimate(mean, None, None, items)
        below.append(value - interval.low)
        above.append(interval.high - value)
    ends = Interval(mean - math.hypot(*below) / count, mean + math.hypot(*above) / count)
    return Estimate(mean, ends, None, items)


def kind_of(record: DefenseRecord) -> Kind:
    """Classify a defense as none, safegen (alone or in a stack), a control without trained
    weights, or a baseline: by its recorded settings, whatever its name."""
    if record.name == ORIGINAL:
        return "original"
    if UNTRAINED in _parts(record):
        return "control"
    return "safegen" if any(map(_is_ours, _parts(record))) else "baseline"


def kinds_of(table: Table) -> dict[str, Kind]:
    """Return the kind of each defense, by its name."""
    return {record.name: kind_of(record) for record in table.defenses}


def safegen_alone(table: Table) -> str | None:
    """Return the name of the first defense that is safegen and no stack; None without one."""
    alone = (each for each in table.defenses if len(_parts(each)) == 1 and _is_ours(*_parts(each)))
    return next((record.name for record in alone), None)


def _parts(record: DefenseRecord) -> list[str]:
    """List the methods that a defense consists of."""
    return str(record.settings.get("defense", "")).split("+")


def _is_ours(method: str) -> bool:
    return method.partition("-")[0] == SAFEGEN
