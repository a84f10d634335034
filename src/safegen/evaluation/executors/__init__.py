"""Executors: who does the jobs of an evaluation. One file an executor.

An executor decides where and when a job is done, and nothing of what comes out: the table and
the pictures are the same with any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from safegen.errors import SafegenError
from safegen.evaluation.jobs import Failure, Job, Result, WorkerSettings
from safegen.registry import Registry


@dataclass(frozen=True)
class ExecutorOptions:
    """Where an executor finds its workers.

    Attributes:
        workers: how many; one for each device if None.
        address: of a running cluster, for executors that have one.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SafegenError(f"workers must be at least 1, not {self.workers}")


class Executor(Protocol):
    """Has workers do jobs."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Each job with its result, in the order in which they are done.

        Jobs are taken only as workers become free, and the results that wait are few.

        Raises:
            SafegenError: a job failed, or a worker is lost and cannot be had again.
        """

    def close(self) -> None:
        """Let the workers go."""


ExecutorFactory = Callable[[WorkerSettings, ExecutorOptions], Executor]
EXECUTORS: Registry[ExecutorFactory] = Registry("executors", "safegen.evaluation.executors")
register = EXECUTORS.register


def result_of(outcome: Result | Failure) -> Result:
    """A worker's result.

    Raises:
        SafegenError: the job failed by something that the user can mend.
        RuntimeError: it failed by anything else.
    """
    if not isinstance(outcome, Failure):
        return outcome
    if outcome.mendable:
        raise SafegenError(outcome.message)
    raise RuntimeError(f"a worker failed:\n{outcome.message}")
