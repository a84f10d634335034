"""What an attacker is after, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


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
