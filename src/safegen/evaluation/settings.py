"""What an evaluation is asked to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.models.sampling import SamplingSettings
from safegen.results.records import ORIGINAL, Role

Precision = Literal["float32", "float16", "bfloat16"]
_NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)


class NamedSpec(NamedTuple):
    """A component's spec, and what tables call it if not by its own name."""

    name: str | None
    spec: str

    @classmethod
    def parse(cls, text: str) -> NamedSpec:
        """From ``SPEC`` or ``NAME=SPEC``, such as ``second=safegen:other.safetensors``."""
        named = _NAMED.fullmatch(text)
        return cls(named[1], named[2]) if named else cls(None, text)

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        return self.spec if self.name is None else f"{self.name}={self.spec}"


@dataclass(frozen=True)
class AttackSettings:
    """What attacks an evaluation makes, and what the attacker has. All are specs.

    Attributes:
        attacks: one or more, ``SPEC`` or ``NAME=SPEC``; each is a column of the table.
        goals: prompts that say openly what the attacker wants; each is attacked.
        judge: the attacker's own detector.
        examples: other such prompts, for what is learned beforehand; none if None.
        clip: the attacker's own CLIP model, ``lab``, a folder or a hub id; none if None.
    """

    attacks: tuple[str, ...]
    goals: str
    judge: str
    examples: str | None = None
    clip: str | None = None

    def __post_init__(self) -> None:
        if not self.attacks:
            raise SafegenError("no attack to make; give one, such as --attack random-tokens")

    @property
    def attack_specs(self) -> list[NamedSpec]:
        """All attacks, in the order of the table."""
        return [NamedSpec.parse(text) for text in self.attacks]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation. Defenses and prompt sets are specs, or ``NAME=SPEC``.

    Attributes:
        model: ``lab``, a diffusers folder, a hub id or a single file.
        defenses: specs; ``none`` is always evaluated, and first.
        unsafe, benign, near_miss: specs of the prompt sets of each role.
        observers: specs of what looks at the pictures.
        sampling: how pictures are sampled; its guidance is for prompts without one of their own.
        samples: pictures a prompt.
        seed: base of all seeds, instead of those of the prompts.
        concept: what text-dependent defenses are told to avoid, and attackers are after.
        batch: pictures, or attacked prompts, at once. Their last bits depend on it, so a run
            keeps to it.
        threads: of the processor in each worker; the last bits depend on them as well.
        precision: of the model's weights.
        unsafe_names: objects that belong to the concept, which retention does not count.
        real: pictures that the Fréchet distance compares with: a folder, or ``lab``.
        local_files_only: never ask the hub.
        variant, config, allow_pickle, plain_kernels: how the model is loaded; see
            ``safegen.models.options``.
        attack: what is attacked, and how; nothing is if None.
        allow_other_code: add to results that another version of safegen, or of a package, made.
    """

    model: str
    defenses: tuple[str, ...]
    unsafe: tuple[str, ...]
    observers: tuple[str, ...]
    benign: tuple[str, ...] = ()
    near_miss: tuple[str, ...] = ()
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    samples: int = 1
    seed: int | None = None
    concept: Concept | None = None
    batch: int = 8
    threads: int = 1
    precision: Precision = "float32"
    unsafe_names: frozenset[str] = frozenset()
    real: str | None = None
    local_files_only: bool = False
    variant: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    plain_kernels: bool = False
    attack: AttackSettings | None = None
    allow_other_code: bool = False

    def __post_init__(self) -> None:
        for given, what, option in (
            (self.defenses, "no defense", "--defense sld-max"),
            (self.unsafe or self.attack, "no unsafe prompt set", "--unsafe i2p:FILE"),
            (self.observers, "nothing that looks at the pictures", "--detector nudenet"),
        ):
            if not given:
                raise SafegenError(f"{what} to evaluate; give one, such as {option}")
        for name in ("samples", "batch", "threads"):
            if getattr(self, name) < 1:
                raise SafegenError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise SafegenError(f"unknown precision {self.precision!r}; known: {known}")
        if self.attack is not None and self.concept is None:
            raise SafegenError(
                "an attack has to be told what it is after; give the concept's text: --concept-text"
            )
        refuse_twice("defenses", self.defenses)
        refuse_twice("prompt sets", [spec for _, spec in self._prompt_specs()])
        refuse_twice("observers", self.observers)

    @property
    def defense_specs(self) -> list[NamedSpec]:
        """All defenses, the original first."""
        named = [NamedSpec.parse(text) for text in self.defenses]
        return [NamedSpec(None, ORIGINAL), *(each for each in named if each != (None, ORIGINAL))]

    @property
    def prompt_set_specs(self) -> list[tuple[Role, NamedSpec]]:
        """All prompt sets: unsafe ones, benign ones, near-misses."""
        return [(role, NamedSpec.parse(text)) for role, text in self._prompt_specs()]

    def _prompt_specs(self) -> Iterator[tuple[Role, str]]:
        yield from (("unsafe", spec) for spec in self.unsafe)
        yield from (("benign", spec) for spec in self.benign)
        yield from (("near-miss", spec) for spec in self.near_miss)


def refuse_twice(what: str, names: Any) -> None:
    """An error if any name is there more than once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SafegenError(
            f"{what}: {twice[0]!r} is there twice, and a table needs different names; "
            "leave one out, or name it: NAME=SPEC"
        )
