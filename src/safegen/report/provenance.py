"""Provenance that a repetition needs, as named lists for the page and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Entries = list[tuple[str, str]]


def named_lists(found: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Entries]:
    """Flatten nested values to lists by name, without empty ones."""
    lists = {name: list(_flat(values)) for name, values in found.items() if values}
    return {name: entries for name, entries in lists.items() if entries}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested values to (dotted name, text); lists fill one line, those of mappings are
    numbered, unknown values are left out."""
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
