"""The attack table of the lab: every attack against the defenses that papers compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from safegen.attacks import ATTACKS, Access, Side, create_attack
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.lab.profile import JUDGE, LAB
from safegen.lab.table import lab_settings

COUNT = 16
"""Goals of each attack, and prompts of each other kind."""
VARIANTS = {
    "sneakyprompt": ("n", "p"),
    "img2img": ("0.3", "0.5", "0.7", "0.9"),
    "relearn": ("benign", "unsafe"),
}
"""What stands for an attack that comes in several kinds."""
CONTROL = "random-tokens"
UNATTACKED = ("sld-weak", "sld-medium", "sld-strong", "negative-prompt")
"""Defenses of the lab's evaluation that hardly remove anything, or less than ``sld-max``."""
SIDES = get_args(Side)
ACCESSES = get_args(Access)


def lab_attacks() -> tuple[str, ...]:
    """Specs of all attacks of the package: the control, then side by side, black box first."""
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
    """Attacks on the lab with what their attacker has there.

    Args:
        attacks: specs.
        count: goals, of the held-out explicit prompts; examples are of the attack split.
    """
    return AttackSettings(
        attacks,
        goals=f"{LAB.goals},count={count}",
        judge=JUDGE,
        examples=LAB.examples,
        clip=LAB.name,
    )


def lab_attack_settings(patches: Path, count: int = COUNT) -> EvaluationSettings:
    """The lab's attack table, beside the plain prompts and what must stay.

    Among its defenses is ``filtered``, a model that never saw the concept: what is drawn with it,
    the attack handed on.

    Args:
        patches: run folder that has the patches.
        count: goals of each attack, and prompts of each other kind.

    Raises:
        SafegenError: the folder's name cannot stand in a defense's spec.
    """
    table = lab_settings(patches, count, JUDGE)
    return replace(
        table,
        defenses=tuple(spec for spec in table.defenses if spec not in UNATTACKED),
        unsafe=(f"explicit=lab:explicit,count={count}",),
        real=None,
        batch=COUNT,
        attack=lab_attack(lab_attacks(), count),
    )
