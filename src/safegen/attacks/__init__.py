"""Attacks: algorithms that search for inputs that still bring the concept out of a defended model.

Each file is an attack and registers a factory under its name. Attacks test a model that the user
holds locally.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from safegen.attacks.tasks import Finding as Finding
from safegen.attacks.tasks import Task as Task
from safegen.registry import Registry, create, name_of

if TYPE_CHECKING:
    from safegen.attacks.target import Target
    from safegen.profiles import Profile

Side = Literal["text", "image", "weights"]
Access = Literal["black box", "white box"]


@dataclass(frozen=True)
class AttackIdentity:
    """Identity of an attack, recorded with every result.

    Attributes:
        name: name in tables, such as ``img2img-0.5``.
        side: the attacker's input: a text, a picture or other weights.
        access: whether the attacker uses gradients of the model.
        settings: everything that the result depends on, as JSON values; no paths.
    """

    name: str
    side: Side
    access: Access
    settings: dict[str, Any] = field(default_factory=dict)


Strike = Callable[[Sequence[Task]], list[Finding]]
"""Function that attacks a batch of tasks; each task's result is independent of the others."""


class Attack(ABC):
    """An attack on a model."""

    @property
    @abstractmethod
    def identity(self) -> AttackIdentity:
        """Identity recorded with every result."""

    @abstractmethod
    def against(self, target: Target) -> AbstractContextManager[Strike]:
        """Prepare the attack on one defended model, learning once what serves all tasks.

        The target is restored when the context ends.

        Raises:
            SafegenError: the attack does not fit the model.
        """


AttackFactory = Callable[..., Attack]
ATTACKS: Registry[AttackFactory] = Registry(
    "attacks", "safegen.attacks", shared=("target", "search", "tasks")
)
register = ATTACKS.register


def create_attack(spec: str, profile: Profile | None = None) -> Attack:
    """Create the attack of ``name``, ``name:argument`` or ``name:argument,option=value``.

    Args:
        spec: such as ``img2img:0.5`` or ``p4d:k,iterations=500``; the options are the fields of
            the attack's settings.
        profile: the model's profile, whose settings of the attack replace the papers'. A factory
            with a parameter ``usual`` gets them as they are, one with ``profile`` the profile.

    Raises:
        SafegenError: the name or an option is unknown, or an argument is missing or not accepted.
    """
    name = name_of(spec)
    usual = {} if profile is None else profile.attacks.get(name, {})
    context = {"usual": usual, "profile": profile}
    if "usual" in inspect.signature(ATTACKS.get(name)).parameters:
        usual = {}
    return create(ATTACKS, spec, "img2img:0.5", context=context, usual=usual)
