"""Run of an evaluation from its settings to its table; resumes an interrupted run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from safegen.errors import SafegenError
from safegen.evaluation.executors import EXECUTORS, Executor, ExecutorOptions
from safegen.evaluation.jobs import (
    Attacker,
    Draw,
    Drawn,
    Inspect,
    Inspection,
    Look,
    ObserverFacts,
    Seen,
    WorkerSettings,
)
from safegen.evaluation.plan import (
    REAL_BATCH,
    Plan,
    draw_jobs,
    example_tasks,
    keep_items,
    look_jobs,
    missing_observations,
    missing_pictures,
    plan_evaluation,
    real_jobs,
)
from safegen.evaluation.provenance import code, comparable, provenance
from safegen.evaluation.real import RealPictures, real_pictures
from safegen.evaluation.scoring import score
from safegen.evaluation.settings import EvaluationSettings
from safegen.results.cells import StoredCells, has_features, real_batches
from safegen.results.records import Table
from safegen.results.sessions import check_code, session
from safegen.results.store import ResultsStore

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """Progress of a phase of an evaluation.

    Attributes:
        phase: name of the phase.
        done, total: numbers of pictures, without those that existed before.
        detail: finished work in words.
    """

    phase: Literal["drawing", "observing"]
    done: int
    total: int
    detail: str = ""


def evaluate(
    settings: EvaluationSettings,
    folder: Path,
    executor: str = "local",
    options: ExecutorOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Table:
    """Draw and observe what the run folder lacks, and score all that the settings name.

    Args:
        settings: settings of the evaluation.
        folder: run folder; its results are used and extended.
        executor: registered name of the executor.
        options: options of the executor.
        say: gets messages for the user, a line each.
        on_progress: gets the progress after every batch.

    Raises:
        SafegenError: the folder has results that were made differently, or a named component is
            unknown, missing or does not fit.
    """
    return _complete(settings, folder, executor, options, say, on_progress, _Run.table)


def observe(
    settings: EvaluationSettings,
    folder: Path,
    executor: str = "local",
    options: ExecutorOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Draw and observe as ``evaluate`` does, without the table."""
    _complete(settings, folder, executor, options, say, on_progress, lambda *_: None)


def _complete(
    settings: EvaluationSettings,
    folder: Path,
    executor: str,
    options: ExecutorOptions | None,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    finish: Callable[[_Run, Inspection], T],
) -> T:
    """Complete a run folder, and call ``finish`` on it."""
    plan = plan_evaluation(settings)
    real = real_pictures(settings.real) if settings.real is not None else None
    factory = EXECUTORS.get(executor)
    with (
        ResultsStore(folder) as store,
        closing(factory(worker_settings(settings), options or ExecutorOptions())) as workers,
    ):
        run = _Run(settings, plan, store, workers, real, say, on_progress)
        inspection = run.begin()
        run.complete(inspection)
        return finish(run, inspection)


def worker_settings(settings: EvaluationSettings) -> WorkerSettings:
    """Build the workers' settings of an evaluation."""
    return WorkerSettings(
        model=settings.model,
        sampling=settings.sampling,
        concept=settings.concept,
        precision=settings.precision,
        threads=settings.threads,
        local_files_only=settings.local_files_only,
        variant=settings.variant,
        config=settings.config,
        allow_pickle=settings.allow_pickle,
        plain_kernels=settings.plain_kernels,
        attacker=_attacker(settings),
    )


def _attacker(settings: EvaluationSettings) -> Attacker | None:
    attack = settings.attack
    if attack is None:
        return None
    return Attacker(attack.judge, attack.clip, example_tasks(settings))


@dataclass(frozen=True)
class _Run:
    """Phases of an evaluation."""

    settings: EvaluationSettings
    plan: Plan
    store: ResultsStore
    workers: Executor
    real: RealPictures | None
    say: Callable[[str], None]
    on_progress: Callable[[Progress], None]

    def begin(self) -> Inspection:
        """Inspect the model, and check that new results are comparable with existing ones."""
        drawn = self.store.drawn_defenses()  # known to fit
        specs = (each.spec for each in self.plan.defenses if each.record.name not in drawn)
        job = Inspect(tuple(specs), self.settings.observers)
        ((_, inspection),) = self.workers.run([job])
        assert isinstance(inspection, Inspection)
        for note in inspection.notes:
            self.say(note)
        self._refuse_same_names(inspection)
        self.store.keep_settings(comparable(self.settings, inspection))
        if self.real is not None:
            self.store.keep_real(self.real.identity)
        if inspection.attacker is not None:
            self.store.keep_attacker(inspection.attacker)
        for facts in inspection.observers.values():
            self.store.keep_observer(facts.identity)
        for defense in self.plan.defenses:
            self.store.keep_defense(defense.record)
        keep_items(self.store, self.plan, self.settings)
        return inspection

    def complete(self, inspection: Inspection) -> None:
        """Draw and observe what is missing.

        Raises:
            SafegenError: something is missing, and other code made the existing results.
        """
        if not self._is_missing(inspection):
            return
        made_by = code()
        if not self.settings.allow_other_code:
            check_code(self.store, made_by)
        with session(self.store, made_by):
            self.draw(inspection)
            self.observe(inspection)
            if self.real is not None:
                self.observe_real(self.real, inspection)

    def _is_missing(self, inspection: Inspection) -> bool:
        observers = inspection.observers
        if missing_pictures(self.store, self.plan):
            return True
        if missing_observations(self.store, self.plan, observers):
            return True
        return self.real is not None and self._lacks_features(self.real, inspection)

    def _lacks_features(self, real: RealPictures, inspection: Inspection) -> bool:
        wanted, featured = real.identity["count"], self._featured(inspection)
        names = [facts.identity.name for facts in featured.values()]
        done = (REAL_BATCH * len(real_batches(self.store, name)) for name in names)
        return not names or min(done) < wanted

    def draw(self, inspection: Inspection) -> None:
        """Draw the pictures that are missing."""
        total, done = missing_pictures(self.store, self.plan), 0
        told = set(inspection.notes)
        if total:
            self.say(f"drawing {total} pictures")
        jobs = draw_jobs(self.store, self.plan, inspection)
        for job, result in self.workers.run(jobs):
            assert isinstance(job, Draw)
            assert isinstance(result, Drawn)
            positions = list(job.items)
            self.store.add_pictures(job.cell, positions, result.pictures, result.findings)
            for note in result.notes:
                if note not in told:
                    self.say(note)
            told.update(result.notes)
            done += len(positions)
            self.on_progress(Progress("drawing", done, total, " on ".join(job.cell)))

    def observe(self, inspection: Inspection) -> None:
        """Observe the pictures that observers have not seen."""
        observers = inspection.observers
        total, done = missing_observations(self.store, self.plan, observers), 0
        for job, result in self.workers.run(look_jobs(self.store, self.plan, observers)):
            assert isinstance(job, Look)
            assert isinstance(result, Seen)
            assert job.cell is not None
            positions = list(job.pictures)
            self.store.add_observations(job.expected.name, job.cell, positions, result.observations)
            done += len(positions)
            self.on_progress(Progress("observing", done, total, f"with {job.observer}"))

    def observe_real(self, real: RealPictures, inspection: Inspection) -> None:
        """Record the features of real pictures, for the observers that have features."""
        featured = self._featured(inspection)
        if not featured:
            raise SafegenError(
                "real pictures are compared by their features, and no observer has any; "
                "give --clip or --inception, or leave out --real"
            )
        for spec, facts in featured.items():
            name = facts.identity.name
            for job, result in self.workers.run(real_jobs(self.store, real, spec, facts)):
                assert isinstance(job, Look)
                assert isinstance(result, Seen)
                features = np.stack([np.asarray(seen.features) for seen in result.observations])
                self.store.add_real_features(name, job.batch, features)

    def _featured(self, inspection: Inspection) -> dict[str, ObserverFacts]:
        """Return the observers with features of single pictures, by spec."""
        return {
            spec: facts
            for spec, facts in inspection.observers.items()
            if not facts.compares and has_features(self.store, facts.identity.name)
        }

    def table(self, inspection: Inspection) -> Table:
        """Score all that the settings name."""
        defenses = [defense.record for defense in self.plan.defenses]
        prompt_sets = [prompt_set.record for prompt_set in self.plan.prompt_sets]
        cells = StoredCells(
            self.store,
            [record.name for record in defenses],
            prompt_sets,
            [facts.identity.name for facts in inspection.observers.values()],
            self.settings.unsafe_names,
        )
        told = provenance(self.settings, inspection, self.store)
        return score(cells, defenses, prompt_sets, told)

    def _refuse_same_names(self, inspection: Inspection) -> None:
        by_name: dict[str, str] = {}
        for spec, facts in inspection.observers.items():
            other = by_name.setdefault(facts.identity.name, spec)
            if other != spec:
                raise SafegenError(
                    f"{other} and {spec} both record as {facts.identity.name!r}; evaluate with "
                    "one, and with the other in another --out folder"
                )
