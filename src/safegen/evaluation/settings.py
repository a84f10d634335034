"""Settings of an evaluation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.models.options import (
    MAX_BATCH,
    MAX_SAMPLES,
    LoadOptions,
    Precision,
    SamplingSettings,
)
from safegen.settings import MAX_SEED, Settings, setting

if TYPE_CHECKING:
    from safegen.results.records import Role

_NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)


class NamedSpec(NamedTuple):
    """Spec of a component, and its name in tables if not its own."""

    name: str | None
    spec: str

    @classmethod
    def parse(cls, text: str) -> NamedSpec:
        """Parse ``SPEC`` or ``NAME=SPEC``, such as ``second=safegen:other.safetensors``."""
        named = _NAMED.fullmatch(text)
        return cls(named[1], named[2]) if named else cls(None, text)

    def __str__(self) -> str:
        """Write the form that ``parse`` reads."""
        return self.spec if self.name is None else f"{self.name}={self.spec}"


SETS = "SPEC or NAME=SPEC, such as i2p:FILE or lab:explicit; may be repeated."


@dataclass(frozen=True)
class AttackSettings(Settings):
    """Settings of an evaluation's attacks and of the attacker; all are specs."""

    attacks: tuple[str, ...] = setting(
        help="Attack to make, SPEC or NAME=SPEC, such as sneakyprompt:p or img2img:0.5; may be "
        "repeated.",
        option="attack",
        panel="Attacks",
    )
    goals: str = setting(
        help="Prompts that say openly what the attacker wants, such as lab:explicit; each is "
        "attacked.",
        panel="Attacks",
    )
    judge: str = setting(
        help="Attacker's own detector (default: that of --detector).", panel="Attacks"
    )
    examples: str | None = setting(
        None, "Other such prompts, for what is learned beforehand.", panel="Attacks"
    )
    clip: str | None = setting(
        None, "Attacker's own CLIP model: a folder, a hub id, or lab.", panel="Attacks"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.attacks:
            raise SafegenError("no attack to make; give one, such as --attack random-tokens")

    @property
    def attack_specs(self) -> list[NamedSpec]:
        """List all attacks, in the order of the table."""
        return [NamedSpec.parse(text) for text in self.attacks]


@dataclass(frozen=True)
class EvaluationSettings(LoadOptions):
    """Settings of an evaluation. Defenses and prompt sets are specs, or ``NAME=SPEC``.

    Attributes:
        model: name of a profile such as ``lab``, a diffusers folder, a hub id or a single file.
        concept: concept that text-dependent defenses avoid, and attackers seek.
        unsafe_names: names of the concept's objects, which retention does not count.
        sampling: sampling settings of the pictures.
        attack: settings of the attacks; None without attacks.
    """

    model: str
    defenses: tuple[str, ...] = setting(
        help="Defense, SPEC or NAME=SPEC, such as sld-max or safegen:PATCH+sld-max; may be "
        "repeated. The undefended model is always evaluated.",
        option="defense",
        panel="Evaluated",
    )
    unsafe: tuple[str, ...] = setting(
        help=f"Prompts that ask for the concept: {SETS}", panel="Evaluated"
    )
    observers: tuple[str, ...] = setting(
        help="Observer of the pictures, a spec such as detector:nudenet; may be repeated.",
        option="observer",
        panel="Evaluated",
    )
    benign: tuple[str, ...] = setting(
        (), f"Prompts whose pictures must stay: {SETS}", panel="Evaluated"
    )
    near_miss: tuple[str, ...] = setting(
        (), f"Benign prompts whose pictures resemble the concept: {SETS}", panel="Evaluated"
    )
    sampling: SamplingSettings = SamplingSettings()
    samples: int = setting(
        1, "Pictures a prompt.", minimum=1, maximum=MAX_SAMPLES, panel="Sampling"
    )
    seed: int | None = setting(
        None,
        "Base of all seeds, instead of the seeds of the prompts.",
        panel="Sampling",
        minimum=0,
        maximum=MAX_SEED,
    )
    concept: Concept | None = None
    batch: int = setting(
        8,
        "Pictures, or attacked prompts, at once in each worker; the last bits of pictures depend "
        "on it, so a run keeps to it.",
        panel="Computation",
        minimum=1,
        maximum=MAX_BATCH,
    )
    threads: int = setting(
        1,
        "Processor threads a worker; the last bits of pictures depend on them.",
        panel="Computation",
        minimum=1,
    )
    precision: Precision = setting("fp32", "Precision of the weights.", panel="Computation")
    unsafe_names: frozenset[str] = frozenset()
    real: str | None = setting(
        None,
        "Real pictures for the Fréchet distance: a folder, or lab.",
        panel="Evaluated",
    )
    attack: AttackSettings | None = None
    allow_other_code: bool = setting(
        False,
        "Add to a run folder whose results another version of safegen or its packages made.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for given, what, option in (
            (self.defenses, "no defense", "--defense sld-max"),
            (self.unsafe or self.attack, "no unsafe prompt set", "--unsafe i2p:FILE"),
            (self.observers, "nothing that looks at the pictures", "--detector nudenet"),
        ):
            if not given:
                raise SafegenError(f"{what} to evaluate; give one, such as {option}")
        if self.attack is not None and self.concept is None:
            raise SafegenError(
                "an attack has to be told what it is after; give the concept's text: --concept-text"
            )
        refuse_twice("defenses", self.defenses)
        refuse_twice("prompt sets", [spec for _, spec in self._prompt_specs()])
        refuse_twice("observers", self.observers)

    @property
    def defense_specs(self) -> list[NamedSpec]:
        """List all defenses, the original first."""
        from safegen.results.records import ORIGINAL

        named = [NamedSpec.parse(text) for text in self.defenses]
        return [NamedSpec(None, ORIGINAL), *(each for each in named if each != (None, ORIGINAL))]

    @property
    def prompt_set_specs(self) -> list[tuple[Role, NamedSpec]]:
        """List all prompt sets: unsafe, benign, near-miss."""
        return [(role, NamedSpec.parse(text)) for role, text in self._prompt_specs()]

    def _prompt_specs(self) -> Iterator[tuple[Role, str]]:
        yield from (("unsafe", spec) for spec in self.unsafe)
        yield from (("benign", spec) for spec in self.benign)
        yield from (("near-miss", spec) for spec in self.near_miss)


def refuse_twice(what: str, names: Any) -> None:
    """Raise an error if a name occurs twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SafegenError(
            f"{what}: {twice[0]!r} is there twice, and a table needs different names; "
            "leave one out, or name it: NAME=SPEC"
        )
