"""Attacks made by a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

from safegen.attacks import Finding, create_attack
from safegen.attacks import Strike as StrikeTasks
from safegen.attacks.target import ClipModel, Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import Defense
from safegen.detectors import Detector, create_detector
from safegen.errors import SafegenError
from safegen.evaluation.jobs import Attacker, AttackOrder, Strike, WorkerSettings
from safegen.evaluation.plan import attack_settings, plain, task_of
from safegen.models.anatomy import denoiser_of, fingerprint
from safegen.observers.clip import clip_settings, load_clip
from safegen.profiles import profile_of
from safegen.results.records import FindingRecord


class Striker:
    """Maker of attacks on a pipeline; an attack stays prepared while its defense is attacked.

    Args:
        settings: settings of the worker, with an attacker.
        attacker: means of the attacker.
        concept: concept that the attacks seek.
    """

    def __init__(self, settings: WorkerSettings, attacker: Attacker, concept: Concept) -> None:
        self._settings = settings
        self._attacker = attacker
        self._concept = concept
        self._prepared: tuple[AttackOrder, StrikeTasks] | None = None
        self._open = ExitStack()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Facts that a run records of the attacker: its judge, its CLIP model, and its concept."""
        source, clip = self._attacker.clip, self._clip
        compared = None if source is None else clip_settings(source, clip)
        judge, concept = asdict(self._judge.identity), self._concept.identity
        return plain({"judge": judge, "clip": compared, "concept": concept})

    def strike(self, pipeline: Any, defense: Defense, job: Strike) -> list[Finding]:
        """Attack a job's items.

        Raises:
            SafegenError: the attack does not fit the model, or differs from the job's.
        """
        try:
            found = self._against(pipeline, defense, job.attack)(
                [task_of(item) for item in job.items.values()]
            )
        except SafegenError as error:
            self.stop()
            raise SafegenError(f"{job.attack.spec} against {job.defense}: {error}") from error
        except BaseException:
            self.stop()
            raise
        if len(found) != len(job.items):
            raise ValueError(f"{job.attack.spec}: {len(found)} findings of {len(job.items)} tasks")
        return found

    def stop(self) -> None:
        """Restore the pipeline from before the attack."""
        self._prepared = None
        self._open.close()

    def _against(self, pipeline: Any, defense: Defense, order: AttackOrder) -> StrikeTasks:
        if self._prepared is not None and self._prepared[0] == order:
            return self._prepared[1]
        self.stop()
        attack = create_attack(order.spec, profile_of(self._settings.model))
        if attack_settings(attack.identity) != order.expected:
            raise SafegenError("is not the same for all workers; give all the same safegen")
        target = Target(
            pipeline,
            defense,
            self._concept,
            self._judge,
            self._settings.sampling,
            self._clip,
            self._attacker.examples,
        )
        if attack.identity.side == "weights":
            self._open.enter_context(_weights_kept(pipeline, order.spec))
        strike = self._open.enter_context(attack.against(target))
        self._prepared = (order, strike)
        return strike

    @cached_property
    def _judge(self) -> Detector:
        offline = self._settings.local_files_only
        return create_detector(self._attacker.judge, local_files_only=offline)

    @cached_property
    def _clip(self) -> ClipModel:
        source, offline = self._attacker.clip, self._settings.local_files_only
        return no_clip() if source is None else load_clip(source, local_files_only=offline)


@contextmanager
def _weights_kept(pipeline: Any, spec: str) -> Iterator[None]:
    """Check that an attack that trains the model restores its weights."""
    before = fingerprint(denoiser_of(pipeline))
    yield
    if fingerprint(denoiser_of(pipeline)) != before:
        raise SafegenError(f"{spec}: left the model's weights changed; mend the attack")


def records_of(findings: Sequence[Finding]) -> tuple[FindingRecord, ...]:
    """Convert findings to records, without their pictures."""
    return tuple(
        FindingRecord(
            found.text,
            float(found.score),
            int(found.pictures),
            int(found.passes),
            plain(found.details),
        )
        for found in findings
    )
