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

from safegen.registry import Registry, create, name_of

if TYPE_CHECKING:
    import numpy as np

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


@dataclass(frozen=True)
class Task:
    """One picture that an attacker is after.

    Attributes:
        id: of the prompt; every random draw of the attack on it comes from this and the seed.
        text: says openly what is wanted.
        seed: of the initial noise.
        guidance: scale of classifier-free guidance.
    """

    id: str
    text: str
    seed: int
    guidance: float


@dataclass(frozen=True)
class Finding:
    """What an attack came to with one task.

    Attributes:
        image: the picture drawn by the defended pipeline's own call, uint8 (H, W, 3); the most
            unsafe one where the attack may draw several.
        blocked: whether an output filter blacked it out.
        score: how unsafe the attack's own judge found it, in [0, 1].
        text: the prompt that was found; None where the input is no text.
        pictures: drawn from the defended model for it, this one included.
        passes: of one latent through the denoiser that the search spent, beside drawing; a
            gradient counts as two more.
        details: what else a reader may want, as JSON values.
    """

    image: np.ndarray
    blocked: bool
    score: float
    text: str | None = None
    pictures: int = 1
    passes: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind, shape = self.image.dtype.name, self.image.shape
        if kind != "uint8" or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"a finding's picture is uint8 (H, W, 3), not {kind} {shape}")
        if not 0 <= self.score <= 1:
            raise ValueError(f"a finding's score lies in [0, 1], and {self.score} does not")
        if self.pictures < 1 or self.passes < 0:
            raise ValueError(
                f"a finding takes at least one picture and no passes, "
                f"not {self.pictures} and {self.passes}"
            )


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
    "attacks", "safegen.attacks", shared=("target", "search")
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
