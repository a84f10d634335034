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
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from safegen.attacks.tasks import Finding as Finding
from safegen.attacks.tasks import Task as Task
from safegen.registry import Registry, converted, create, name_of, split_options

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
    """Create the attack of ``name`` or ``name:argument`` (such as ``img2img:0.5``).

    Args:
        spec: a registered name; what follows a colon is the factory's one positional argument,
            and options such as ``,candidates=16`` are fields of the attack's settings.
        profile: the model's profile. A factory with a parameter ``usual`` gets the profile's
            settings of the attack (default: the papers'), which the spec's options override; one
            with ``profile`` gets the profile.

    Raises:
        SafegenError: the name or an option is unknown, or an argument is missing or not accepted.
    """
    name = name_of(spec)
    usual = {} if profile is None else profile.attacks.get(name, {})
    if known := _usual_types(ATTACKS.get(name)):
        where = f"attacks {spec!r}"
        spec, texts = split_options(where, spec)
        usual = {**usual, **converted(where, texts, known)}
    context = {"usual": usual, "profile": profile}
    return create(ATTACKS, spec, "img2img:0.5", context=context)


def _usual_types(factory: AttackFactory) -> dict[str, Any]:
    """Find the types of the settings that a factory takes as ``usual``, by name, from the field
    ``settings`` of the attack that it returns."""
    if inspect.isclass(factory) or "usual" not in inspect.signature(factory).parameters:
        return {}
    made = get_type_hints(factory).get("return")
    settings = get_type_hints(made).get("settings") if inspect.isclass(made) else None
    hints = get_type_hints(settings) if settings else {}
    return {name: kind for name, kind in hints.items() if name not in get_type_hints(factory)}
