"""This machine: in this process on one device, or a process for each of several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.evaluation.executors import Executor, ExecutorOptions, register, result_of
from safegen.evaluation.jobs import Failure, Job, Result, WorkerSettings
from safegen.evaluation.worker import Worker


class InProcess:
    """One worker, in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._threads = torch.get_num_threads()
        self._worker = Worker(settings)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See ``Executor.run``."""
        for job in jobs:
            yield job, self._worker.do(job)

    def close(self) -> None:
        """See ``Executor.close``."""
        torch.set_num_threads(self._threads)


class Processes:
    """A process for each of the given settings."""

    def __init__(self, settings: list[WorkerSettings]) -> None:
        self._processes: list[_Process] = []
        for each in settings:
            self._processes.append(_Process(each))

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See ``Executor.run``."""
        waiting = iter(jobs)
        idle = list(self._processes)
        busy: dict[Any, tuple[_Process, Job]] = {}
        while True:
            while idle and (job := next(waiting, None)) is not None:
                process = idle.pop()
                process.give(job)
                busy[process.connection] = (process, job)
            if not busy:
                return
            for connection in wait(list(busy)):
                process, job = busy.pop(connection)
                idle.append(process)
                yield job, process.result()

    def close(self) -> None:
        """See ``Executor.close``; what a worker is at is given up."""
        for process in self._processes:
            process.close()


class _Process:
    """A worker in a process of its own, at the other end of a pipe."""

    def __init__(self, settings: WorkerSettings) -> None:
        # A forked process cannot use a GPU, and inherits locks that torch's threads hold.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        try:
            self.connection.send(job)
        except OSError as error:
            raise self._lost() from error

    def result(self) -> Result:
        try:
            outcome: Result | Failure = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        return result_of(outcome)

    def close(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()

    def _lost(self) -> SafegenError:
        self._process.join()
        return SafegenError(
            f"a worker process ended unexpectedly (exit code {self._process.exitcode}), often for "
            "want of memory; with fewer --workers, or a smaller --batch in another --out, the "
            "same command goes on"
        )


def _serve(connection: Connection, settings: WorkerSettings) -> None:
    """Do jobs until the pipe is closed, as it is when the parent is gone."""
    try:
        worker = Worker(settings)
        while True:
            connection.send(worker.attempt(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return


@register("local")
def local(settings: WorkerSettings, options: ExecutorOptions) -> Executor:
    """Workers on this machine: one for each GPU, and one where there is none."""
    if options.address is not None:
        raise SafegenError(
            "the executor local works on this machine only; leave out --ray-address, or give "
            "--executor ray"
        )
    gpus = torch.cuda.device_count()
    count = options.workers or max(1, gpus)
    if count == 1:
        return InProcess(settings)
    devices = [f"cuda:{number % gpus}" if gpus else None for number in range(count)]
    return Processes([replace(settings, device=device) for device in devices])
