"""Exchanging parts of a pipeline."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from safegen.defenses import Undo


def exchange(pipeline: Any, parts: dict[str, Any]) -> Undo:
    """Put parts into a pipeline by name; returns what puts the former ones back."""
    with ExitStack() as undo:
        for name, part in parts.items():
            undo.callback(partial(setattr, pipeline, name, getattr(pipeline, name)))
            setattr(pipeline, name, part)
        return undo.pop_all().close
