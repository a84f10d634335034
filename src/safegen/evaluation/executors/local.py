"""Executor on this machine: in this process on one device, or one process per device."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.evaluation.executors import Executor, ExecutorOptions, register, result_of
from safegen.evaluation.jobs import Failure, Job, Result, WorkerSettings
from safegen.evaluation.worker import Worker

VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE = 30
"""Seconds allowed for a worker to end."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = (128 + signal.SIGINT, -signal.SIGINT)
"""Exit codes of a worker ended by Ctrl-C, after and before it began to serve."""


class InProcess:
    """Executor with one worker, in this process."""

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
    """Executor with one process per given GPU, which sees no other; None leaves all visible.

    Args:
        settings: settings of all workers.
        gpus: names of the GPUs as in ``CUDA_VISIBLE_DEVICES``.
    """

    def __init__(self, settings: WorkerSettings, gpus: Sequence[str | None]) -> None:
        self._processes: list[_Process] = []
        for gpu in gpus:
            self._processes.append(_Process(settings, gpu))

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See ``Executor.run``."""
        waiting = iter(jobs)
        busy: dict[Any, tuple[_Process, Job]] = {}

        def employ(process: _Process) -> None:
            if (job := next(waiting, None)) is not None:
                process.give(job)
                busy[process.connection] = (process, job)

        for process in self._processes:
            employ(process)
        while busy:
            for connection in wait(list(busy)):
                process, job = busy.pop(connection)
                result = process.result()
                employ(process)  # first, so that it does not wait while the result is kept
                yield job, result

    def close(self) -> None:
        """See ``Executor.close``; running jobs are given up."""
        for process in self._processes:
            process.close()


class _Process:
    """Worker in a process of its own, at the other end of a pipe."""

    def __init__(self, settings: WorkerSettings, gpu: str | None) -> None:
        # A forked process cannot use a GPU, and inherits locks that torch's threads hold.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        with _visible(gpu):
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
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()

    def _lost(self) -> BaseException:
        """Explain the loss of the worker. Ctrl-C reaches a terminal's workers too, maybe first, or
        gets lost here where Python drops exceptions, as in a destructor."""
        self._process.join()
        if self._process.exitcode in INTERRUPTED:
            return KeyboardInterrupt()
        return SafegenError(
            f"a worker process ended unexpectedly (exit code {self._process.exitcode}), often for "
            "want of memory; with fewer --workers, or a smaller --batch in another --out, the "
            "same command goes on"
        )


@contextmanager
def _visible(gpu: str | None) -> Iterator[None]:
    """Let a process started in the block see one GPU only.

    All that it loads is then on that GPU: the pipeline, and every detector and other observer.
    """
    before = os.environ.get(VISIBLE)
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if before is not None:
            os.environ[VISIBLE] = before
        elif gpu is not None:
            del os.environ[VISIBLE]


def _serve(connection: Connection, settings: WorkerSettings) -> None:
    """Do jobs until the pipe closes, which the parent's end does too."""
    for number in SIGNALS:
        signal.signal(number, _leave)
    try:
        worker = Worker(settings)
        while True:
            connection.send(worker.attempt(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        _ignore_signals()


def _leave(number: int, frame: Any) -> None:
    """End the process normally: killed at once, it would leave semaphores behind, of which Python
    warns."""
    del frame
    _ignore_signals()
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    """Ignore signals in a process that is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@register("local")
def local(settings: WorkerSettings, options: ExecutorOptions) -> Executor:
    """Start workers on this machine: one per GPU, else one."""
    if options.address is not None:
        raise SafegenError(
            "the executor local works on this machine only; leave out --ray-address, or give "
            "--executor ray"
        )
    gpus = torch.cuda.device_count()
    count = options.workers or max(1, gpus)
    if count == 1:
        return InProcess(settings)
    return Processes(settings, shared_out(gpus, count, os.environ.get(VISIBLE)))


def shared_out(gpus: int, workers: int, visible: str | None = None) -> list[str | None]:
    """Assign each worker a GPU, named as in ``CUDA_VISIBLE_DEVICES``; None without GPUs.

    Args:
        gpus: number of GPUs that this process sees.
        workers: number of workers that share them.
        visible: value of this process's own ``CUDA_VISIBLE_DEVICES``.
    """
    if not gpus:
        return [None] * workers
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return [names[number % gpus].strip() for number in range(workers)]
