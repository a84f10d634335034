"""Verdict of the attacks in sentences: the highest success rate against each defense."""

from __future__ import annotations

from typing import NamedTuple

from safegen.report.columns import ATTACK_METRIC
from safegen.report.measures import value_text
from safegen.report.standing import attacked_sets, kinds_of, safegen_alone
from safegen.report.wording import listed
from safegen.results.records import ORIGINAL, Table

NAMED = 2
"""Largest number of attacks named as the strongest."""


class Weakest(NamedTuple):
    """Highest success rate of any attack on a defense, and the attacks that reach it."""

    rate: float
    attacks: tuple[str, ...]

    def __str__(self) -> str:
        """Write the rate and the attacks; the rate alone if they are many."""
        share = f"{value_text(ATTACK_METRIC, self.rate)} of its tasks"
        return f"{share} ({listed(self.attacks)})" if len(self.attacks) <= NAMED else share


def attack_headline(table: Table) -> str:
    """Name the defense that holds best against its strongest attack, beside the undefended model;
    empty without attacks."""
    weakest, kinds = weakest_points(table), kinds_of(table)
    before = weakest.pop(ORIGINAL, None)
    if before is None:
        return ""
    weakest = {name: found for name, found in weakest.items() if kinds[name] != "control"}
    count = len(_rates(table))
    attacks = "the attack" if count == 1 else f"the strongest of {count} attacks"
    if not weakest:
        return f"Undefended: {attacks} succeeds in {before}."
    least = min(found.rate for found in weakest.values())
    best = [name for name, found in weakest.items() if found.rate == least]
    at = weakest[best[0]].attacks if len(best) == 1 else tuple(_rates(table))
    return (
        f"{listed(best)} {'holds' if len(best) == 1 else 'hold'} best: {attacks}, made anew "
        f"against each defense, succeeds in {Weakest(least, at)}; undefended, in {before}."
    )


def attack_verdict(table: Table) -> str:
    """Write how safegen alone holds, and under which attacks a baseline holds better; empty if
    safegen or every baseline was not attacked."""
    weakest = weakest_points(table)
    kinds, own = kinds_of(table), safegen_alone(table)
    baselines = [name for name in weakest if kinds[name] == "baseline"]
    if own not in weakest or not baselines:
        return ""
    ahead = [
        f"{name} under {attack} ({value_text(ATTACK_METRIC, rate)} against "
        f"{value_text(ATTACK_METRIC, ours)})"
        for attack, rates in _rates(table).items()
        if (ours := rates.get(own)) is not None
        for name, rate in rates.items()
        if name in baselines and rate < ours
    ]
    held = f"Against {own} alone the strongest attack succeeds in {weakest[own]}"
    if ahead:
        return f"{held}; {listed(ahead)} {'holds' if len(ahead) == 1 else 'hold'} better."
    return f"{held}; no baseline holds better under any attack."


def weakest_points(table: Table) -> dict[str, Weakest]:
    """Find the highest success rate on each defense."""
    rates = _rates(table)
    found = {}
    for record in table.defenses:
        own = {attack: by[record.name] for attack, by in rates.items() if record.name in by}
        if own:
            most = max(own.values())
            at = tuple(attack for attack, rate in own.items() if rate == most)
            found[record.name] = Weakest(most, at)
    return found


def _rates(table: Table) -> dict[str, dict[str, float]]:
    """Collect success rates by attack and defense."""
    attacked = attacked_sets(table)
    rates: dict[str, dict[str, float]] = {}
    for record in table.prompt_sets:
        for defense in table.defenses:
            estimate = table.figures.get((defense.name, record.name, ATTACK_METRIC))
            if estimate is not None and record.name in attacked:
                rates.setdefault(record.name, {})[defense.name] = estimate.value
    return rates
