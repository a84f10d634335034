"""Attacks: algorithms that look for inputs which still bring the concept out of a defended model.

One file an attack; each registers a factory under the file's name. They are for testing a model
that one holds locally.
"""

from __future__ import annotations

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
    """What a result must record of the attack it was made by.

    Attributes:
        name: as in a table, such as ``img2img-0.5``.
        side: what the attacker gives the model: a text, a picture, or other weights.
        access: whether the attacker computes gradients of the model.
        settings: all that its effect depends on, as JSON values; no paths.
    """

    name: str
    side: Side
    access: Access
    settings: dict[str, Any] = field(default_factory=dict)


Strike = Callable[[Sequence[Task]], list[Finding]]
"""Attacks a batch of tasks; what comes of one does not depend on the others."""


class Attack(ABC):
    """A way to bring the concept out of a model."""

    @property
    @abstractmethod
    def identity(self) -> AttackIdentity:
        """What to record beside every result."""

    @abstractmethod
    def against(self, target: Target) -> AbstractContextManager[Strike]:
        """Prepare against one defended model: what is learned once for all tasks is learned here.

        The target is as it was once the context ends.

        Raises:
            SafegenError: the attack cannot be made on such a model.
        """


AttackFactory = Callable[..., Attack]
ATTACKS: Registry[AttackFactory] = Registry(
    "attacks", "safegen.attacks", shared=("target", "search", "tasks")
)
register = ATTACKS.register


def create_attack(spec: str, profile: Profile | None = None) -> Attack:
    """The attack of ``name``, or of ``name:argument`` (such as ``img2img:0.5``).

    Args:
        spec: a registered name; what follows a colon is the factory's one positional argument.
        profile: of the model. A factory with a parameter ``usual`` is given what the profile says
            of the attack's settings; it takes those of the papers for all else.

    Raises:
        SafegenError: the name is unknown, or an argument is missing or not taken.
    """
    usual = {} if profile is None else profile.attacks.get(name_of(spec), {})
    return create(ATTACKS, spec, "img2img:0.5", context={"usual": usual})
