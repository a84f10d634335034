"""Progress lines of an evaluation: pictures done, their total, and the time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from safegen.cli._console import Console

SECONDS_BETWEEN_LINES = 30.0


class EvaluationProgress:
    """Shows each phase as a progress bar; without a terminal, prints a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = time.monotonic()

    def __enter__(self) -> EvaluationProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, phase: str, done: int, total: int, detail: str = "") -> None:
        """Show how far a phase is."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, detail="")
        self._bars.update(self._tasks[phase], completed=done, total=total, detail=detail)
        late = time.monotonic() - self._told > SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and (late or done == total):
            self._told = time.monotonic()
            self._console.print(f"{phase}: {done} of {total}  {detail}")
