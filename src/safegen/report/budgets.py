"""Budgets of attacks in words: a success rate means nothing without its budget."""

from __future__ import annotations

from safegen.results.records import PromptSetRecord, Table

ADAPTIVE = "Attacks are made anew against each defense. What a goal costs, from defense to defense:"

_SINGULARS = {"pictures": "picture", "passes": "pass"}


def budget_lines(table: Table) -> list[str]:
    """List a heading, and a line per attack of a table with its kind and mean budget."""
    lines = [
        f"{record.name}: {attack_kind(record)}, {budget(table, record.name)}."
        for record in table.prompt_sets
        if record.attack
    ]
    return [ADAPTIVE, *lines] if lines else []


def attack_kind(record: PromptSetRecord) -> str:
    """Write side and access of an attacked prompt set's attack, such as ``text, white box``."""
    attack = record.attack or {}
    return f"{attack.get('side', 'unknown')}, {attack.get('access', 'unknown')}"


def budget(table: Table, prompt_set: str) -> str:
    """Write mean pictures and passes per goal, each as the range over the defenses."""
    spans = {metric: _span(table, prompt_set, metric) for metric in _SINGULARS}
    return " and ".join(
        f"{span} {_SINGULARS[metric] if span == '1' else metric}" for metric, span in spans.items()
    )


def _span(table: Table, prompt_set: str, metric: str) -> str:
    keys = ((record.name, prompt_set, metric) for record in table.defenses)
    means = [table.figures[key].value for key in keys if key in table.figures]
    if not means:
        return "unknown"
    ends = dict.fromkeys(f"{end:,.1f}".removesuffix(".0") for end in (min(means), max(means)))
    return " to ".join(ends)
