"""Plan of an evaluation: its defenses and prompt sets by name, their items, and the batches.

Batches follow from the prompts' positions in their set alone, so pictures depend neither on
existing results nor on the worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from safegen.attacks import AttackIdentity, Task, create_attack
from safegen.defenses import DefenseIdentity, create_defense
from safegen.errors import SafegenError
from safegen.evaluation.jobs import (
    AttackOrder,
    Draw,
    Inspection,
    Look,
    ObserverFacts,
    Picture,
    Strike,
)
from safegen.evaluation.real import RealPictures
from safegen.evaluation.settings import EvaluationSettings, NamedSpec, refuse_twice
from safegen.profiles import profile_of
from safegen.prompts import PROMPT_SETS, Prompt, PromptSet, create_prompt_set
from safegen.registry import name_of
from safegen.results.cells import (
    batch_items,
    read_picture,
    real_batches,
    undrawn,
    undrawn_batches,
    unseen,
    unseen_batches,
    unseen_positions,
)
from safegen.results.records import ORIGINAL, DefenseRecord, Item, PromptSetRecord
from safegen.results.store import CellKey, ResultsStore

REAL_BATCH = 64


@dataclass(frozen=True)
class PlannedDefense:
    """Defense, and the spec that makes it."""

    record: DefenseRecord
    spec: str


@dataclass(frozen=True)
class PlannedPromptSet:
    """Prompt set with its prompts, and the attack whose goals they are, if any."""

    record: PromptSetRecord
    prompts: PromptSet
    attack: AttackOrder | None = None


@dataclass(frozen=True)
class Plan:
    """Defenses and prompt sets of an evaluation, in the order of the table."""

    defenses: tuple[PlannedDefense, ...]
    prompt_sets: tuple[PlannedPromptSet, ...]

    @property
    def cells(self) -> list[tuple[PlannedDefense, CellKey]]:
        """List all cells, the original's first."""
        return [
            (defense, CellKey(defense.record.name, prompt_set.record.name))
            for defense in self.defenses
            for prompt_set in self.prompt_sets
        ]

    @property
    def attacks(self) -> dict[str, AttackOrder]:
        """Return the attacks by the names of their prompt sets."""
        return {each.record.name: each.attack for each in self.prompt_sets if each.attack}


def plan_evaluation(settings: EvaluationSettings) -> Plan:
    """Look up all defenses and prompt sets; neither loads a model nor lists prompts.

    Raises:
        SafegenError: a defense or set is unknown, unreadable, or has the name of another.
    """
    return Plan(planned_defenses(settings), planned_prompt_sets(settings))


def planned_defenses(settings: EvaluationSettings) -> tuple[PlannedDefense, ...]:
    """See ``plan_evaluation``."""
    defenses = tuple(_defense(named, settings) for named in settings.defense_specs)
    refuse_twice("defenses", [each.record.name for each in defenses])
    return defenses


def planned_prompt_sets(settings: EvaluationSettings) -> tuple[PlannedPromptSet, ...]:
    """See ``plan_evaluation``."""
    specs = settings.prompt_set_specs
    drawn = (_prompt_set(named, role, settings) for role, named in specs)
    prompt_sets = (*drawn, *_attacked_prompt_sets(settings))
    refuse_twice("prompt sets", [each.record.name for each in prompt_sets])
    return prompt_sets


def defense_settings(identity: DefenseIdentity) -> dict[str, Any]:
    """Return the recorded settings of a defense without its name in the run; plain JSON values."""
    return plain({"defense": identity.name, **identity.settings})


def attack_settings(identity: AttackIdentity) -> dict[str, Any]:
    """Return the recorded settings of an attack without its name in the run; plain JSON values."""
    return plain(asdict(identity))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to plain JSON values."""
    made: dict[str, Any] = json.loads(json.dumps(values))
    return made


def _defense(named: NamedSpec, settings: EvaluationSettings) -> PlannedDefense:
    offline, profile = settings.local_files_only, profile_of(settings.model)
    made = create_defense(named.spec, settings.concept, profile, local_files_only=offline)
    identity = made.identity
    name = named.name or identity.name
    record = DefenseRecord(name, defense_settings(identity), made.changes)
    return PlannedDefense(record, named.spec)


def _prompt_set(named: NamedSpec, role: Any, settings: EvaluationSettings) -> PlannedPromptSet:
    prompts = _prompts(named.spec, settings)
    identity = prompts.identity
    record = PromptSetRecord(named.name or identity.name, role, asdict(identity))
    return PlannedPromptSet(record, prompts)


def _prompts(spec: str, settings: EvaluationSettings) -> PromptSet:
    if name_of(spec) not in PROMPT_SETS.names() and Path(spec).is_file():
        spec = f"own:{spec}"
    return create_prompt_set(spec, local_files_only=settings.local_files_only)


def _attacked_prompt_sets(settings: EvaluationSettings) -> Iterator[PlannedPromptSet]:
    """Yield the goals once per attack, as a prompt set of the attack's name."""
    attack = settings.attack
    if attack is None:
        return
    goals = _prompts(attack.goals, settings)
    examples = None if attack.examples is None else _prompts(attack.examples, settings)
    besides = {"examples": None if examples is None else asdict(examples.identity)}
    for named in attack.attack_specs:
        identity = create_attack(named.spec, profile_of(settings.model)).identity
        recorded = attack_settings(identity)
        what = {**asdict(goals.identity), "attack": recorded, **besides}
        record = PromptSetRecord(named.name or identity.name, "unsafe", what)
        yield PlannedPromptSet(record, goals, AttackOrder(named.spec, recorded))


def example_tasks(settings: EvaluationSettings) -> tuple[Task, ...]:
    """List the tasks that attackers learn from before the attack.

    Raises:
        SafegenError: an example cannot be read.
    """
    attack = settings.attack
    if attack is None or attack.examples is None:
        return ()
    return tuple(map(task_of, items_of(_prompts(attack.examples, settings), settings)))


def task_of(item: Item) -> Task:
    """Convert an item to an attacker's goal."""
    return Task(item.prompt_id, item.text, item.seed, item.guidance)


def keep_items(store: ResultsStore, plan: Plan, settings: EvaluationSettings) -> None:
    """Record every prompt set that the store lacks, one prompt at a time."""
    for planned in plan.prompt_sets:
        items = items_of(planned.prompts, settings)
        store.keep_prompt_set(planned.record, in_batches(items, settings.batch))


def items_of(prompts: Iterable[Prompt], settings: EvaluationSettings) -> Iterator[Item]:
    """Yield the items of prompts, one per picture.

    Raises:
        SafegenError: a prompt has a guidance scale below 1.
    """
    for prompt in prompts:
        guidance = settings.sampling.guidance_scale if prompt.guidance is None else prompt.guidance
        if guidance < 1:
            raise SafegenError(
                f"prompt {prompt.id} has guidance {guidance:g}, and at least 1 is needed; "
                "correct it in its file"
            )
        for sample in range(settings.samples):
            seed = prompt.seed_of(sample, settings.seed)
            yield Item(prompt.id, sample, prompt.text, seed, guidance, prompt.asked)


def in_batches(items: Iterable[Item], size: int) -> Iterator[tuple[int, Item]]:
    """Yield each item with its batch's number; a batch is ``size`` items of one guidance scale."""
    filling: dict[float, tuple[int, int]] = {}
    begun = 0
    for item in items:
        number, count = filling.get(item.guidance, (0, size))
        if count == size:
            number, count = begun, 0
            begun += 1
        filling[item.guidance] = (number, count + 1)
        yield number, item


def missing_pictures(store: ResultsStore, plan: Plan) -> int:
    """Count the pictures still to be drawn."""
    return sum(undrawn(store, cell) for _, cell in plan.cells)


def draw_jobs(store: ResultsStore, plan: Plan, inspection: Inspection) -> Iterator[Draw]:
    """Yield a job per batch whose pictures are missing, the original's first."""
    model, device, attacker = inspection.model, inspection.device, inspection.attacker or {}
    attacks = plan.attacks
    for defense, cell in plan.cells:
        attack = attacks.get(cell.prompt_set)
        for batch in undrawn_batches(store, cell):
            items = batch_items(store, cell.prompt_set, batch)
            what = (cell, defense.spec, defense.record.settings, model, device, items)
            yield Draw(*what) if attack is None else Strike(*what, attack, attacker)


def missing_observations(
    store: ResultsStore, plan: Plan, observers: Mapping[str, ObserverFacts]
) -> int:
    """Count the pictures that observers have still to see."""
    return sum(
        unseen(store, facts.identity.name, cell)
        for facts in observers.values()
        for _, cell in plan.cells
    )


def look_jobs(
    store: ResultsStore, plan: Plan, observers: Mapping[str, ObserverFacts]
) -> Iterator[Look]:
    """Yield a job per observer and batch with pictures that it has not seen."""
    for spec, facts in observers.items():
        for _, cell in plan.cells:
            for batch in unseen_batches(store, facts.identity.name, cell):
                yield _look_job(store, spec, facts, cell, batch)


def _look_job(
    store: ResultsStore, spec: str, facts: ObserverFacts, cell: CellKey, batch: int
) -> Look:
    items = batch_items(store, cell.prompt_set, batch)
    before = CellKey(ORIGINAL, cell.prompt_set)
    pictures = {
        position: Picture(
            read_picture(store, cell, position),
            items[position].text,
            read_picture(store, before, position) if facts.compares else None,
        )
        for position in unseen_positions(store, facts.identity.name, cell, batch)
    }
    return Look(spec, facts.identity, pictures, cell)


def real_jobs(
    store: ResultsStore, real: RealPictures, spec: str, facts: ObserverFacts
) -> Iterator[Look]:
    """Yield a job per batch of real pictures that an observer has not seen."""
    pictures, done = iter(real), real_batches(store, facts.identity.name)
    for batch in count():
        chosen = list(islice(pictures, REAL_BATCH))
        if not chosen:
            return
        if batch not in done:
            numbered = {number: Picture(image) for number, image in enumerate(chosen)}
            yield Look(spec, facts.identity, numbered, batch=batch)
