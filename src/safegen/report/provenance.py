"""What a repetition needs to know, as named lists for the page and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from safegen.report.figures import duration

Entries = list[tuple[str, str]]


def sections(summary: Mapping[str, Any]) -> dict[str, Entries]:
    """Run, detector, classifier, settings, seeds and versions of a summary, without empty ones."""
    run = {
        "model": summary["model"],
        "patch": summary["patch"],
        "encoder": summary["encoder"],
        "edit": duration(summary["edit_seconds"]),
        "whole run": duration(summary["total_seconds"]),
    }
    found = {
        "run": run,
        "detector": summary["detector"],
        "object classifier": summary["classifier"],
        "edit and sampling": summary["settings"],
        "seeds": summary["seeds"],
        "versions": summary["versions"],
    }
    return named_lists(found)


def named_lists(found: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Entries]:
    """Nested values as flat lists by name, without empty ones."""
    lists = {name: list(_flat(values)) for name, values in found.items() if values}
    return {name: entries for name, entries in lists.items() if entries}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as (dotted name, text); lists on one line, those of mappings by number; what
    is not known is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            numbered = {str(number): each for number, each in enumerate(value, 1)}
            yield from _flat(numbered, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if value:
                yield f"{prefix}{key}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{key}", " ".join(str(value).split())
