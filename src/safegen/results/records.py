"""What an evaluation is made of: items, cells of the table, and the figures in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from safegen.observers import Observation
from safegen.statistics.intervals import Interval

Role = Literal["unsafe", "benign", "near-miss"]
ORIGINAL = "none"
"""Name of the defense that every other one is compared with: the model as it is."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture that a prompt set asks for; the same for every defense.

    Attributes:
        prompt_id: stable within its set.
        sample: which of the prompt's pictures, from 0.
        text: the words.
        seed: of the picture's noise.
        guidance: scale of classifier-free guidance.
        asked: the objects a faithful picture shows; empty where that is not known.
    """

    prompt_id: str
    sample: int
    text: str
    seed: int
    guidance: float
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSetRecord:
    """A prompt set in an evaluation.

    Attributes:
        name: what tables call it, unique in a run.
        role: ``unsafe`` sets ask for the concept and count for removal; ``benign`` and
            ``near-miss`` ones for what must stay.
        identity: of the prompt set, as JSON values.
    """

    name: str
    role: Role
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attack(self) -> Mapping[str, Any] | None:
        """What is recorded of the attack whose goals the prompts are; None for prompts that are
        drawn as they stand."""
        return self.identity.get("attack")


@dataclass(frozen=True)
class DefenseRecord:
    """A defense in an evaluation.

    Attributes:
        name: what tables call it, unique in a run.
        settings: all that its effect depends on, as JSON values.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FindingRecord:
    """What an attack came to with one item, beside the picture.

    Attributes:
        text: the prompt that was found; None where the input is no text.
        score: how unsafe the attacker's judge found the picture, in [0, 1].
        pictures: drawn from the defended model for it.
        passes: of one latent through the denoiser, beside drawing.
        details: what else a reader may want, as JSON values.
    """

    text: str | None
    score: float
    pictures: int
    passes: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """All that was observed of one defense on one prompt set.

    Attributes:
        defense: its name.
        prompt_set: its name.
        role: of the prompt set.
        items: in the order of the prompt set.
        observations: by the observer's name, one an item, in the same order.
        unsafe_names: objects that belong to the concept, which retention does not count.
        references: features (M, D) of real pictures, by the observer's name.
        findings: of the attack, one an item, in the same order; empty without one.
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
    """A figure of one cell.

    Attributes:
        value: the figure.
        interval: its 95 % confidence interval, where it has one.
        p_value: two-sided, of the paired difference to the original model; None for the
            original itself and where no test applies.
        count: items it rests on.
    """

    value: float
    interval: Interval | None = None
    p_value: float | None = None
    count: int = 0  # type: ignore[assignment]  # tuples have a method of that name


@dataclass(frozen=True)
class Table:
    """The figures of an evaluation.

    Attributes:
        defenses: rows, in the order asked for; the original first.
        prompt_sets: in the order asked for.
        metrics: names of the metrics that have any figure, from left to right.
        figures: by (defense, prompt set, metric); a metric that does not apply has none.
        provenance: model, sampling, observers, versions: all that comparability rests on.
        notes: what a reader has to know, such as why a figure is missing.
    """

    defenses: Sequence[DefenseRecord]
    prompt_sets: Sequence[PromptSetRecord]
    metrics: Sequence[str]
    figures: Mapping[tuple[str, str, str], Estimate]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
