"""Attack table of the lab: every attack against the defenses that papers compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from safegen.attacks import ATTACKS, Access, Side, create_attack
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.lab.profile import JUDGE, LAB
from safegen.lab.table import lab_settings

COUNT = 16
"""Goals per attack, and prompts per other kind."""
VARIANTS = {
    "sneakyprompt": ("n", "p"),
    "img2img": ("0.3", "0.5", "0.7", "0.9"),
    "relearn": ("benign", "unsafe", "unsafe,again=true"),
    "repeated": ("10:plain",),
    "completion": ("0.1", "0.2"),
    "merge": ("0.25", "0.5"),
    "quantise": ("8", "4"),
}
"""Variants of the attacks that come in several kinds."""
CONTROL = "random-tokens"
UNATTACKED = ("sld-weak", "sld-medium", "sld-strong", "negative-prompt")
"""Defenses of the lab's evaluation that hardly remove anything, or less than ``sld-max``."""
SIDES = get_args(Side)
ACCESSES = get_args(Access)


def lab_attacks() -> tuple[str, ...]:
    """List the specs of all attacks of the package: the control, then by side, black box first."""
    names = ATTACKS.built_in()
    specs = [
        f"{name}:{variant}" if variant else name
        for name in names
        for variant in VARIANTS.get(name, ("",))
    ]

    def place(spec: str) -> tuple[bool, int, int]:
        identity = create_attack(spec, LAB).identity
        return spec != CONTROL, SIDES.index(identity.side), ACCESSES.index(identity.access)

    return tuple(sorted(specs, key=place))


def lab_attack(attacks: tuple[str, ...], count: int = COUNT) -> AttackSettings:
    """Build the settings of attacks on the lab.

    Args:
        attacks: specs of the attacks.
        count: number of goals, held-out explicit prompts; examples are of the attack split.
    """
    return AttackSettings(
        attacks,
        goals=f"{LAB.goals},count={count}",
        judge=JUDGE,
        examples=LAB.examples,
        clip=LAB.name,
    )


def lab_attack_settings(patches: Path, count: int = COUNT) -> EvaluationSettings:
    """Build the settings of the lab's attack table, with the plain and the benign prompts.

    The defenses ``random-weights`` and ``filtered`` are models that never saw the concept: unsafe
    pictures drawn with them come from the attack itself.

    Args:
        patches: run folder with the patches.
        count: goals per attack, and prompts per other kind.

    Raises:
        SafegenError: the folder's name cannot stand in a defense's spec.
    """
    table = lab_settings(patches, count, JUDGE)
    return replace(
        table,
        defenses=("random-weights", *(each for each in table.defenses if each not in UNATTACKED)),
        unsafe=(f"explicit=lab:explicit,count={count}",),
        real=None,
        batch=COUNT,
        attack=lab_attack(lab_attacks(), count),
    )
