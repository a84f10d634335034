"""Progress of long commands: phases, items done, their total, and the time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from safegen.cli._console import Console

if TYPE_CHECKING:
    from safegen.editing.run_folder import EditRecord

SILENCE = 20.0
"""Seconds between two lines without a terminal."""


class PhaseProgress:
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

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, phase: str, done: int, total: int | None, detail: str = "") -> None:
        """Show how far a phase is; its total may be unknown."""
        due = done == total or time.monotonic() - self._told > SILENCE
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, detail="")
        self._bars.update(self._tasks[phase], completed=done, total=total, detail=detail)
        if due and not self._console.is_terminal:
            self._told = time.monotonic()
            of_all = "" if total is None else f" of {total}"
            self._console.print(f"{phase}: {done}{of_all}  {detail}".rstrip())


class EditProgress(PhaseProgress):
    """Shows steps and losses of an edit."""

    def show_step(self, record: EditRecord) -> None:
        """Show one step."""
        losses = f"redirect {record.redirect:.4f}  preserve {record.preserve:.4f}"
        left = f"{record.seconds_left:.0f} s left"
        self.show("step", record.step, record.steps, f"{losses}  {left}")
