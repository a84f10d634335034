"""Policy of a release: what is measured, and the bounds that its figures must keep.

A policy is a YAML file. ``DEFAULT`` ships with the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.concepts import Concept, load_concept
from safegen.errors import SafegenError
from safegen.evaluation.requirements import Requirement
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.files import read_mapping
from safegen.metrics import METRICS
from safegen.models.options import LoadOptions, Sampler
from safegen.profiles import Profile, profile_of
from safegen.registry import with_options
from safegen.results.records import ORIGINAL
from safegen.settings import Settings, own_options, setting, suggestion

DEFAULT = Path(__file__).with_name("default_policy.yaml")
SAFEGEN = "safegen"
Texts = tuple[str, ...]


@dataclass(frozen=True)
class Policy(Settings):
    """What a release is measured on, and the bounds that it must keep."""

    bounds: Texts = setting(
        help="Bounds on the figures of prompt sets, METRIC>=VALUE or METRIC@SET<=VALUE."
    )
    attack_bounds: Texts = setting((), "Bounds on the figures of attacks, in the same form.")
    profile: str | None = setting(
        None, "Profile of the usual settings, such as lab (default: the model's own)."
    )
    concept: str | None = setting(None, "Concept, a name or a YAML file (default: the profile's).")
    unsafe: Texts = setting(
        (), "Prompts that ask for the concept, specs (default: the concept's, held out)."
    )
    benign: Texts = setting((), "Prompts whose pictures must stay (default: the concept's).")
    near_miss: Texts = setting(
        (), "Benign prompts that resemble the concept (default: the concept's)."
    )
    count: int = setting(64, "Prompts of each of the concept's own sets.", minimum=1)
    attacks: Texts = setting((), "Attacks, specs whose options are the budget.")
    goals: str | None = setting(
        None, "Prompts that say what attackers want, a spec (default: the profile's)."
    )
    goal_count: int = setting(32, "Number of the profile's goals.", minimum=1)
    examples: str | None = setting(
        None, "Other such prompts, from which attackers learn (default: the profile's)."
    )
    judge: str | None = setting(
        None, "Attackers' own detector (default: the profile's, else the concept's)."
    )
    attacker_clip: str | None = setting(None, "Attackers' CLIP model (default: the profile's).")
    defenses: Texts = setting((), "Defenses to compare with, specs.")
    observers: Texts = setting(
        (), "Observers beside the concept's detector and the profile's, specs."
    )
    samples: int = setting(1, "Pictures a prompt.", minimum=1)
    steps: int | None = setting(None, "Denoising steps (default: the profile's).", minimum=1)
    guidance_scale: float | None = setting(
        None, "Guidance scale (default: the profile's).", minimum=1
    )
    sampler: Sampler | None = setting(None, "Sampler (default: the profile's).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bounds:
            raise SafegenError("bounds: give at least one, such as 'asr<=0.1'")
        if self.attack_bounds and not self.attacks:
            raise SafegenError("attack_bounds: no attack is made; list some under attacks")
        if self.attacks and not self.attack_bounds:
            raise SafegenError("attacks: no bound is on them; give attack_bounds, as 'asr<=0.25'")
        for requirement, _ in self.requirements:
            _check(requirement)

    @property
    def requirements(self) -> list[tuple[Requirement, bool]]:
        """All bounds, each with whether it is on attacks."""
        return [
            *((Requirement.parse(text), False) for text in self.bounds),
            *((Requirement.parse(text), True) for text in self.attack_bounds),
        ]

    def described(self) -> dict[str, Any]:
        """Describe the policy as JSON values."""
        return {option.field: getattr(self, option.field) for option in own_options(Policy)}

    def evaluation(
        self, model: str, patch: Path | None, loading: LoadOptions
    ) -> EvaluationSettings:
        """Settings of the measurement of a model with a patch, or as it is without one.

        Raises:
            SafegenError: the policy and the profile leave something open.
        """
        usual = profile_of(self.profile or model) or Profile()
        if self.profile is not None and not usual.name:
            raise SafegenError(f"profile: no model is named {self.profile!r}")
        concept = self._concept(usual)
        released = [] if patch is None else [f"{SAFEGEN}:{patch}"]
        sets = self._sets(concept)
        sampling = {name: getattr(self, name) for name in ("steps", "guidance_scale", "sampler")}
        given = {name: value for name, value in sampling.items() if value is not None}
        return EvaluationSettings.of(
            model=model,
            defense=[*released, *self.defenses] or ["none"],
            **sets,
            observer=list(self._observers(usual, concept)),
            concept=concept,
            unsafe_names=frozenset(concept.objects),
            batch=usual.batch,
            samples=self.samples,
            attack=self._attack(usual, concept),
            **{**usual.sampling, **given},
            **vars(loading),
        )

    def _concept(self, usual: Profile) -> Concept:
        concept = load_concept(self.concept) if self.concept else usual.concept
        if concept is None:
            raise SafegenError("concept: the model has no usual one; name it, as 'concept: nudity'")
        if concept.detector is None:
            raise SafegenError(
                f"concept {concept.name}: what is drawn cannot be judged; give its file a "
                "detector, such as 'detector: nudenet'"
            )
        if not (self.unsafe or concept.prompts.unsafe):
            raise SafegenError(
                f"concept {concept.name}: has no prompts of its own; list some under unsafe"
            )
        return concept

    def _sets(self, concept: Concept) -> dict[str, list[str]]:
        options = {"split": "held-out", "count": self.count}
        own = concept.prompts
        return {
            role: list(given) or [with_options(spec, **options) for spec in usual]
            for role, given, usual in (
                ("unsafe", self.unsafe, own.unsafe),
                ("benign", self.benign, own.benign),
                ("near_miss", self.near_miss, own.near_miss),
            )
        }

    def _observers(self, usual: Profile, concept: Concept) -> Iterator[str]:
        detector = f"detector:{concept.detector}"
        yield from dict.fromkeys((detector, *usual.observers, *concept.observers, *self.observers))

    def _attack(self, usual: Profile, concept: Concept) -> AttackSettings | None:
        if not self.attacks:
            return None
        goals = self.goals or (usual.goals and f"{usual.goals},count={self.goal_count}")
        if goals is None:
            raise SafegenError("goals: the model has no usual ones; give goals: own:FILE")
        return AttackSettings(
            self.attacks,
            goals=goals,
            judge=self.judge or usual.judge or str(concept.detector),
            examples=self.examples or usual.examples,
            clip=self.attacker_clip or (usual.name if usual.clip else None),
        )


def read_policy(path: Path) -> Policy:
    """Read a policy's YAML file.

    Raises:
        SafegenError: the file is no policy; the message names file, line and mend.
    """
    known = {option.field: option for option in own_options(Policy)}
    values: dict[str, Any] = {}
    for name, (value, line) in read_mapping(path, "bounds: ['asr<=0.1']").items():
        place = f"{path}, line {line}: "
        if name not in known:
            hint = suggestion(name, known) or f"; known: {', '.join(known)}"
            raise SafegenError(f"{place}unknown key {name!r}{hint}")
        values[name] = tuple(value) if isinstance(value, list) else value
        try:
            known[name].check(values[name])
        except SafegenError as error:
            raise SafegenError(f"{place}{str(error).removeprefix('--')}") from error
    if "bounds" not in values:
        raise SafegenError(f"{path}: the key bounds is missing; give one, as 'bounds: [asr<=0.1]'")
    try:
        return Policy(**values)
    except SafegenError as error:
        raise SafegenError(f"{path}: {error}") from error


def _check(requirement: Requirement) -> None:
    """Refuse a bound on an unknown metric, of another defense, or on a metric's wrong side."""
    metric = METRICS.get(requirement.metric)()
    if requirement.defense == ORIGINAL:
        return
    if requirement.defense is not None:
        raise SafegenError(
            f"bound {requirement}: bounds are on the released model, or on {ORIGINAL}, the "
            f"undefended one; leave out {requirement.defense!r}"
        )
    wanted = ">=" if metric.higher_is_better else "<="
    if requirement.relation != wanted:
        raise SafegenError(
            f"bound {requirement}: {requirement.metric} is better the "
            f"{'higher' if metric.higher_is_better else 'lower'} it is; write {wanted}"
        )
