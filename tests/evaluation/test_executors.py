"""Executors: pictures do not depend on them, and no result is lost with a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import SafegenError
from safegen.evaluation.executors import EXECUTORS, Executor, ExecutorOptions
from safegen.evaluation.executors.local import Processes, shared_out
from safegen.evaluation.jobs import Draw, Drawn, Inspect, Inspection, WorkerSettings
from safegen.evaluation.plan import draw_jobs, keep_items, plan_evaluation
from safegen.evaluation.settings import EvaluationSettings
from safegen.results.store import CellKey, ResultsStore

Pictures = dict[tuple[CellKey, int], bytes]
Make = Callable[..., EvaluationSettings]


@pytest.fixture
def jobs(make_settings: Make, tmp_path: Path, tiny_worker: WorkerSettings) -> list[Draw]:
    """All jobs of a small evaluation: ten batches, sixteen pictures."""
    settings = make_settings()
    plan = plan_evaluation(settings)
    with closing(executor("local", tiny_worker)) as workers:
        ((_, inspection),) = workers.run([Inspect((), ())])
    assert isinstance(inspection, Inspection)
    with ResultsStore(tmp_path / "jobs") as store:
        keep_items(store, plan, settings)
        return list(draw_jobs(store, plan, inspection))


def executor(name: str, settings: WorkerSettings, workers: int | None = None) -> Executor:
    return EXECUTORS.get(name)(settings, ExecutorOptions(workers))


def collect(results: Iterator[tuple[Any, Any]]) -> Pictures:
    """Every picture by its place; each is drawn once."""
    pictures: Pictures = {}
    for job, drawn in results:
        assert isinstance(drawn, Drawn)
        for position, (png, _) in zip(job.items, drawn.pictures, strict=True):
            assert (job.cell, position) not in pictures
            pictures[job.cell, position] = png
    return pictures


def test_pictures_do_not_depend_on_the_processes_and_a_killed_one_is_told(
    jobs: list[Draw], tiny_worker: WorkerSettings
) -> None:
    with closing(executor("local", tiny_worker)) as one:
        expected = collect(one.run(jobs))
    assert len(expected) == 16
    assert len(set(expected.values())) > 10
    with closing(executor("local", tiny_worker, 2)) as two:
        assert collect(two.run(reversed(jobs))) == expected
        with pytest.raises(SafegenError, match="is not the same for all workers"):
            list(two.run([replace(jobs[0], model={})]))
        results = two.run(jobs)
        next(results)
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(SafegenError, match=r"ended unexpectedly \(exit code -9\)"):
            list(results)


def test_ctrl_c_that_only_a_worker_saw_is_an_interruption(
    jobs: list[Draw], tiny_worker: WorkerSettings
) -> None:
    with closing(executor("local", tiny_worker, 2)) as two:
        results = two.run(jobs)
        next(results)
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            list(results)


def test_a_ray_worker_that_is_killed_loses_no_result(
    jobs: list[Draw], tiny_worker: WorkerSettings
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with closing(executor("local", tiny_worker)) as one:
        expected = collect(one.run(jobs))
    killed: list[int] = []

    def watched() -> Iterator[Draw]:
        for number, job in enumerate(jobs):
            if number == 5:
                killed.append(kill_a_ray_worker())
            yield job

    with closing(executor("ray", tiny_worker, 2)) as cluster:
        assert collect(cluster.run(watched())) == expected
        with pytest.raises(SafegenError, match="is not the same for all workers"):
            list(cluster.run([replace(jobs[0], model={})]))
    assert len(killed) == 1


def kill_a_ray_worker() -> int:
    """Kill one of the actors' processes, which Ray names after their class."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::Worker") and owned(int(process.name)):
            os.kill(int(process.name), signal.SIGKILL)
            return int(process.name)
    raise AssertionError("no Ray worker is running")


def owned(process: int) -> bool:
    """Whether a process descends from this one."""
    while process > 1:
        if process == os.getpid():
            return True
        status = Path(f"/proc/{process}/stat").read_text()
        process = int(status.rpartition(")")[2].split()[1])
    return False


def test_a_worker_ends_with_the_process_that_started_it(tiny_worker: WorkerSettings) -> None:
    code = f"""
import multiprocessing, sys
from safegen.evaluation.executors.local import Processes
from safegen.evaluation.jobs import WorkerSettings
from safegen.models.sampling import SamplingSettings

if __name__ == "__main__":
    settings = WorkerSettings({tiny_worker.model!r}, SamplingSettings())
    workers = Processes(settings, [None])
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    input()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    (child,) = (int(pid) for pid in parent.stdout.readline().split())
    parent.kill()
    parent.communicate()
    wait_for(lambda: not running(child))


def running(pid: int) -> bool:
    """Whether a process runs, and does not only wait for its parent to look at its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.1)


def test_a_worker_sees_its_own_gpu_only(tiny_worker: WorkerSettings) -> None:
    assert shared_out(0, 2) == [None, None]
    assert shared_out(2, 3) == ["0", "1", "0"]
    assert shared_out(2, 2, "GPU-a, 5") == ["GPU-a", "5"]
    before = dict(os.environ)
    with closing(Processes(tiny_worker, ["3", "1"])):
        pids = [child.pid for child in multiprocessing.active_children()]
        wait_for(lambda: sorted(map(visible, pids)) == ["1", "3"])
    assert dict(os.environ) == before


def visible(pid: int | None) -> str:
    """The GPUs that a process was started with."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(each.partition("=")[::2] for each in variables).get("CUDA_VISIBLE_DEVICES", "")


def test_options_that_do_not_fit_are_refused(tiny_worker: WorkerSettings) -> None:
    with pytest.raises(SafegenError, match="works on this machine only"):
        EXECUTORS.get("local")(tiny_worker, ExecutorOptions(address="somewhere:6379"))
    with pytest.raises(SafegenError, match="workers must be at least 1, not 0"):
        ExecutorOptions(0)
    with pytest.raises(SafegenError, match="Did you mean 'ray'"):
        EXECUTORS.get("rey")


def test_ray_is_imported_by_its_executor_only_and_asked_for_by_name() -> None:
    assert EXECUTORS.names() == ["local", "ray"]
    code = """
import sys
import safegen.evaluation.executors.local
assert "ray" not in sys.modules
sys.modules["ray"] = None
from safegen.errors import MissingExtraError
from safegen.evaluation.executors import EXECUTORS
try:
    EXECUTORS.get("ray")(None, None)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'safegen[ray]'" in done.stdout
