"""The terminal as every command writes to it: names and paths literally, and never folded."""

from __future__ import annotations

import os
from typing import Any

import rich.console

WIDTH_OF_A_LOG = 200
"""Columns where there is no terminal, so that tables are not cut."""


class Console(rich.console.Console):
    """A console on which ``[`` and ``:`` mean themselves, and lines of text stay whole."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDTH_OF_A_LOG

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but fold tables only."""
        if all(isinstance(each, str) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)
