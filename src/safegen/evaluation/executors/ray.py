"""Executor on a Ray cluster; without an address, the run starts one on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from safegen.errors import MissingExtraError, SafegenError, first_line
from safegen.evaluation.executors import Executor, ExecutorOptions, register, result_of
from safegen.evaluation.jobs import Failure, Job, Result, WorkerSettings

ATTEMPTS = 3
"""Number of workers that one job may lose."""


class RayExecutor:
    """Pool of Ray actors, each a worker; a lost one is replaced and its job repeated.

    Workers send results back to this process, the only one that writes.
    """

    def __init__(self, settings: WorkerSettings, options: ExecutorOptions) -> None:
        self._ray = _import_ray()
        self._settings = settings
        self._started = not self._ray.is_initialized()
        if self._started:
            _connect(self._ray, settings, options)
        self._gpus, count = _shares(self._ray.cluster_resources(), options.workers)
        self._actors = [self._new_actor() for _ in range(count)]

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """See ``Executor.run``."""
        waiting = iter(jobs)
        busy: dict[Any, tuple[Any, Job, int]] = {}

        def employ(actor: Any) -> None:
            if (job := next(waiting, None)) is not None:
                busy[actor.attempt.remote(job)] = (actor, job, 1)

        for actor in self._actors:
            employ(actor)
        while busy:
            done, _ = self._ray.wait(list(busy), num_returns=1)
            actor, job, attempt = busy.pop(done[0])
            try:
                outcome: Result | Failure = self._ray.get(done[0])
            except self._ray.exceptions.RayError as error:
                actor = self._replace(actor, attempt, error)
                busy[actor.attempt.remote(job)] = (actor, job, attempt + 1)
                continue
            result = result_of(outcome)
            employ(actor)  # first, so that it does not wait while the result is kept
            yield job, result

    def close(self) -> None:
        """See ``Executor.close``; stops a cluster that was started for the run."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def _replace(self, lost: Any, attempt: int, error: Exception) -> Any:
        if attempt == ATTEMPTS:
            reason = first_line(error)
            raise SafegenError(
                f"the same job lost {ATTEMPTS} Ray workers ({reason}), often for want of memory; "
                "with fewer --workers the same command goes on"
            ) from error
        self._actors.remove(lost)
        self._ray.kill(lost)
        self._actors.append(self._new_actor())
        return self._actors[-1]

    def _new_actor(self) -> Any:
        from safegen.evaluation.worker import Worker

        remote = self._ray.remote(num_cpus=self._settings.threads, num_gpus=self._gpus)
        return remote(Worker).remote(self._settings)


def _connect(ray: Any, settings: WorkerSettings, options: ExecutorOptions) -> None:
    # A cluster started here has as many cores as the requested workers need, else all cores.
    cores = options.workers and options.workers * settings.threads
    own = {} if options.address else {"num_cpus": cores, "include_dashboard": False}
    try:
        ray.init(
            address=options.address or "local", log_to_driver=False, logging_level="ERROR", **own
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise SafegenError(
            f"ray: no cluster at {options.address or 'this machine'} ({reason}); check "
            "--ray-address, or leave it out to start one here"
        ) from error


def _shares(resources: dict[str, float], workers: int | None) -> tuple[int, int]:
    """Compute the GPUs per worker, and the number of workers."""
    gpus = int(resources.get("GPU", 0))
    if gpus:
        return 1, workers or gpus
    return 0, workers or max(1, int(resources.get("CPU", 1)))


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("the executor ray", "ray") from error
    return ray


@register("ray")
def ray(settings: WorkerSettings, options: ExecutorOptions) -> Executor:
    """Start workers on a Ray cluster, one per GPU or CPU core of it."""
    return RayExecutor(settings, options)
