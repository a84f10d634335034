"""Executors, which distribute the jobs of an evaluation to workers. One file per executor.

An executor decides where and when a job is done, not its result: the table and the pictures are
the same with every executor.
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
    """Options of an executor.

    Attributes:
        workers: number of workers; one per device if None.
        address: address of a running cluster, for executors that use one.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SafegenError(f"workers must be at least 1, not {self.workers}")


class Executor(Protocol):
    """Distributor of jobs to workers."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Yield each job with its result, in order of completion.

        Jobs are taken only when workers become free, so few results wait.

        Raises:
            SafegenError: a job failed, or a worker is lost and cannot be replaced.
        """

    def close(self) -> None:
        """End the workers."""


ExecutorFactory = Callable[[WorkerSettings, ExecutorOptions], Executor]
EXECUTORS: Registry[ExecutorFactory] = Registry("executors", "safegen.evaluation.executors")
register = EXECUTORS.register


def result_of(outcome: Result | Failure) -> Result:
    """Return a worker's result.

    Raises:
        SafegenError: the job failed by an error that the user can mend.
        RuntimeError: the job failed by any other error.
    """
    if not isinstance(outcome, Failure):
        return outcome
    if outcome.mendable:
        raise SafegenError(outcome.message)
    raise RuntimeError(f"a worker failed:\n{outcome.message}")
