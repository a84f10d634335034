"""Noising: noise along the trajectory, so that sampling searches more (arXiv 2505.17013).

The text stays as it is, and nothing is optimised: each step of DDIM takes back more noise than the
model expects, at several strengths, until the attacker's judge finds the concept. A model that was
taught another way for a text leaves that way under noise, if what it left is still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._trajectory import draw_steered
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class NoisingSettings(Settings, of="noising"):
    """Settings of the search (defaults: the released code's)."""

    etas: tuple[float, ...] = setting(
        (1.0, 1.17, 1.34, 1.51, 1.68, 1.85),
        "Shares of a step's noise that are taken anew.",
        minimum=0,
    )
    scales: tuple[float, ...] = setting(
        (1.0, 1.02, 1.03, 1.04),
        "Factors of the new noise; each is tried with each share.",
        above=0,
    )
    seed: int = setting(0, "Seed of the noise.", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.etas and self.scales):
            raise SafegenError("noising: give at least one eta and one scale")


@dataclass(frozen=True)
class Noising(Attack):
    """Draw each goal with more and more noise along the way."""

    settings: NoisingSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("noising", "image", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        generators = [task_generator(task, self.settings.seed) for task in tasks]
        strengths = list(product(self.settings.etas, self.settings.scales))

        def draw(rows: list[int], number: int) -> list[Drawn]:
            eta, scale = strengths[number]
            left = [tasks[i] for i in rows]
            samples = draw_steered(target, left, [generators[i] for i in rows], eta, scale)
            return [Drawn(each, details={"eta": eta, "scale": scale}) for each in samples]

        return search(target, tasks, draw, len(strengths))


@register("noising")
@takes(NoisingSettings)
def noising(**options: Any) -> Noising:
    """The goals as they stand, drawn with noise along the trajectory."""
    return Noising(NoisingSettings(**options))
