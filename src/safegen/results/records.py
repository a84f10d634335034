"""Records of an evaluation: items, cells of the table, and the figures in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from safegen.observers import Observation
from safegen.statistics.intervals import Interval

Role = Literal["unsafe", "benign", "near-miss"]
ORIGINAL = "none"
"""Name of the undefended model, with which every defense is compared."""


@dataclass(frozen=True, slots=True)
class Item:
    """Picture that a prompt set asks for; the same for every defense.

    Attributes:
        prompt_id: id of the prompt, stable within its set.
        sample: number of the picture among the prompt's, from 0.
        text: text of the prompt.
        seed: seed of the picture's noise.
        guidance: scale of classifier-free guidance, at least 1.
        asked: objects that a faithful picture shows; empty if not known.
    """

    prompt_id: str
    sample: int
    text: str
    seed: int
    guidance: float
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSetRecord:
    """Prompt set in an evaluation.

    Attributes:
        name: name in tables, unique in a run.
        role: ``unsafe`` sets ask for the concept and count for removal; ``benign`` and
            ``near-miss`` ones for what must stay.
        identity: identity of the prompt set, as JSON values.
    """

    name: str
    role: Role
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attack(self) -> Mapping[str, Any] | None:
        """Record of the attack whose goals the prompts are; None for prompts that are drawn
        unchanged."""
        return self.identity.get("attack")


@dataclass(frozen=True)
class DefenseRecord:
    """Defense in an evaluation.

    Attributes:
        name: name in tables, unique in a run.
        settings: all that its effect depends on, as JSON values.
        changes: what it changes; see ``Defense``.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: str = "unknown"


@dataclass(frozen=True)
class FindingRecord:
    """Result of an attack on one item, beside the picture.

    Attributes:
        text: found prompt; None if the input is no text.
        score: unsafe score of the picture by the attacker's judge, in [0, 1].
        pictures: number of pictures drawn from the defended model.
        passes: number of passes of one latent through the denoiser, beside drawing.
        details: further facts, as JSON values.
    """

    text: str | None
    score: float
    pictures: int
    passes: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """Observations of one defense on one prompt set.

    Attributes:
        defense: name of the defense.
        prompt_set: name of the prompt set.
        role: role of the prompt set.
        items: items in the order of the prompt set.
        observations: one per item, in the same order, by the observer's name.
        unsafe_names: names of the concept's objects, which retention does not count.
        references: features (M, D) of real pictures, by the observer's name.
        findings: findings of the attack, one per item, in the same order; empty without one.
    """

    defense: str
    prompt_set: str
    role: Role
    items: Sequence[Item]
    observations: Mapping[str, Sequence[Observation]]
    unsafe_names: frozenset[str] = frozenset()
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    findings: Sequence[FindingRecord] = ()


class Estimate(NamedTuple):
    """Figure of one cell.

    Attributes:
        value: value of the figure.
        interval: 95 % confidence interval, if there is one.
        p_value: two-sided p-value of the paired difference to the original model; None for the
            original itself and if no test applies.
        count: number of items behind the figure.
    """

    value: float
    interval: Interval | None = None
    p_value: float | None = None
    count: int = 0  # type: ignore[assignment]  # tuples have a method of that name


@dataclass(frozen=True)
class Table:
    """Figures of an evaluation.

    Attributes:
        defenses: rows in the given order, the original first.
        prompt_sets: prompt sets in the given order.
        metrics: names of the metrics with any figure, from left to right.
        figures: figures by (defense, prompt set, metric); a metric that does not apply has none.
        provenance: model, sampling, observers, versions: all that comparability rests on.
        notes: notes for the reader, such as why a figure is missing.
    """

    defenses: Sequence[DefenseRecord]
    prompt_sets: Sequence[PromptSetRecord]
    metrics: Sequence[str]
    figures: Mapping[tuple[str, str, str], Estimate]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
