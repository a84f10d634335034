"""Progress line of an edit: the teacher's pool, then step, losses and time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from safegen.cli._console import Console
from safegen.editing.run_folder import EditRecord

SILENCE = 15.0
"""Seconds between two lines without a terminal."""


class EditProgress:
    """Shows how far an edit is as a bar; without a terminal, as a line every few seconds."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("editing", total=steps, detail="")
        self._phase, self._said = "", 0.0

    def __enter__(self) -> EditProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show_teacher(self, done: int, total: int) -> None:
        """Show how many pictures of the pool the teacher has seen."""
        self._show("teacher", done, total, "pictures seen by the original model")

    def show(self, record: EditRecord) -> None:
        """Show one step."""
        losses = (
            f"redirect {record.redirect:.4f}  preserve {record.preserve:.4f}  "
            f"{record.seconds_left:.0f} s left"
        )
        self._show("step", record.step, record.steps, losses)

    def _show(self, phase: str, done: int, total: int, detail: str) -> None:
        self._progress.update(
            self._task, description=phase, completed=done, total=total, detail=detail
        )
        due = phase != self._phase or done == total or time.monotonic() - self._said >= SILENCE
        if not self._console.is_terminal and due:
            self._console.print(f"{phase} {done}/{total}  {detail}", soft_wrap=True)
            self._phase, self._said = phase, time.monotonic()
