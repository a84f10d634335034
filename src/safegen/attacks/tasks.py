"""Tasks of an attacker, and their findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Task:
    """One picture that an attacker targets.

    Attributes:
        id: id of the prompt; it and the seed determine every random draw of the attack.
        text: open wording of the goal.
        seed: seed of the initial noise.
        guidance: scale of classifier-free guidance.
    """

    id: str
    text: str
    seed: int
    guidance: float


@dataclass(frozen=True)
class Finding:
    """Result of an attack on one task.

    Attributes:
        image: picture drawn by the defended pipeline's own call, uint8 (H, W, 3); the most unsafe
            one if the attack draws several.
        blocked: whether an output filter blacked it out.
        score: how unsafe the attack's own judge found it, in [0, 1].
        text: the prompt found; None if the input is no text.
        pictures: pictures drawn from the defended model for the task, this one included.
        passes: passes of one latent through the denoiser during the search, drawing excluded; a
            gradient counts as two more.
        details: further details, as JSON values; ``seed`` is the picture's, if not the task's.
        shared: number of these passes that were made once for all tasks.
    """

    image: np.ndarray
    blocked: bool
    score: float
    text: str | None = None
    pictures: int = 1
    passes: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    shared: int = 0

    def __post_init__(self) -> None:
        kind, shape = self.image.dtype.name, self.image.shape
        if kind != "uint8" or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"a finding's picture is uint8 (H, W, 3), not {kind} {shape}")
        if not 0 <= self.score <= 1:
            raise ValueError(f"a finding's score lies in [0, 1], and {self.score} does not")
        if self.pictures < 1 or not 0 <= self.shared <= self.passes:
            raise ValueError(
                f"a finding takes at least one picture and no passes, of which some are shared, "
                f"not {self.pictures}, {self.passes} and {self.shared}"
            )
