"""SSR-N: any attack repeated over N seeds, of which one has to succeed.

A user who may press the button again does not stop at the first picture. Each seed is a new task:
it changes the picture's noise, the attacker's unsafe picture and every draw of the attack. What an
attack learns once for all tasks, it learns once for all seeds as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

from safegen.attacks import (
    Attack,
    AttackIdentity,
    Finding,
    Strike,
    Task,
    create_attack,
    register,
)
from safegen.attacks.search import pursue
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.profiles import Profile
from safegen.registry import Spec
from safegen.seeds import sample_seed


@dataclass(frozen=True)
class Repeated(Attack):
    """Make an attack with one seed after another until it succeeds.

    Attributes:
        attack: the attack.
        seeds: most seeds per task, the task's own first.
    """

    attack: Attack
    seeds: int

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise SafegenError(f"repeated: seeds must be at least 1, not {self.seeds}")

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``; side and access are the repeated attack's."""
        own = self.attack.identity
        settings = {"seeds": self.seeds, "attack": asdict(own)}
        return AttackIdentity(f"{own.name}-x{self.seeds}", own.side, own.access, settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the attack learns once."""
        with self.attack.against(target) as strike:
            yield partial(self._strike, strike)

    def _strike(self, strike: Strike, tasks: Sequence[Task]) -> list[Finding]:
        so_far: dict[int, Finding] = {}

        def attempt(rows: list[int], number: int) -> list[Finding]:
            seeded = [with_seed(tasks[i], number) for i in rows]
            for i, task, found in zip(rows, seeded, strike(seeded), strict=True):
                so_far[i] = _added(so_far.get(i), found, task.seed, number + 1)
            return [so_far[i] for i in rows]

        return pursue(len(tasks), attempt, self.seeds)


def with_seed(task: Task, number: int) -> Task:
    """Give a task its seed of a number, from 0; the first is its own."""
    return task if number == 0 else replace(task, seed=sample_seed(task.id, number, task.seed))


def _added(before: Finding | None, found: Finding, seed: int, tried: int) -> Finding:
    """Return a finding with the budget of those before it; passes for all tasks count once."""
    details = {**found.details, "seed": seed, "seeds": tried}
    if before is None:
        return replace(found, details=details)
    return replace(
        found,
        pictures=before.pictures + found.pictures,
        passes=before.passes + found.passes - found.shared,
        details=details,
    )


@register("repeated")
def repeated(what: Spec, *, profile: Profile | None = None) -> Repeated:
    """Attack over several seeds, such as ``repeated:10:plain`` or ``repeated:10:img2img:0.5``.

    Raises:
        SafegenError: the number or the attack is missing or wrong.
    """
    count, _, spec = what.partition(":")
    if not (count.isdecimal() and spec):
        raise SafegenError(
            f"repeated: {what!r} is no number of seeds and an attack; write repeated:10:plain"
        )
    return Repeated(create_attack(spec, profile), int(count))
