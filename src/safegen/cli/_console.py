"""Console of every command: prints names and paths literally, and never folds them."""

from __future__ import annotations

import os
from typing import Any

import rich.console

WIDTH_OF_A_LOG = 200
"""Width in columns without a terminal, so that tables are not cut."""


class Console(rich.console.Console):
    """Console that prints ``[`` and ``:`` literally and keeps lines of text whole."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDTH_OF_A_LOG

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but fold tables only."""
        if all(isinstance(each, str) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)
