"""A live line for an edit: step, losses, time left."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from safegen.cli._console import Console
from safegen.editing.trainer import EditRecord


class EditProgress:
    """Shows records as a progress bar; without a terminal, prints every fiftieth as a line."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("editing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=steps, losses="")

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

    def show(self, record: EditRecord) -> None:
        """Show one step."""
        losses = (
            f"redirect {record.redirect:.4f}  preserve {record.preserve:.4f}  "
            f"{record.seconds_left:.0f} s left"
        )
        self._progress.update(self._task, completed=record.step, losses=losses)
        if not self._console.is_terminal and (record.step % 50 == 0 or record.step == 1):
            self._console.print(f"step {record.step}/{record.steps}  {losses}")
