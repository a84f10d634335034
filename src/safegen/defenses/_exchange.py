"""Exchange of a pipeline's parts."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from safegen.defenses import Undo


def exchange(pipeline: Any, parts: dict[str, Any]) -> Undo:
    """Replace parts of a pipeline by name; returns the function that restores them."""
    with ExitStack() as undo:
        for name, part in parts.items():
            undo.callback(partial(setattr, pipeline, name, getattr(pipeline, name)))
            setattr(pipeline, name, part)
        return undo.pop_all().close
