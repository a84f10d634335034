"""Preserve loss held at a bound: dual ascent on its multiplier."""

from __future__ import annotations

import math
from typing import Any

from safegen.editing.settings import Preserve

ASCENT = 0.02
"""Change of the multiplier's logarithm in a step, per logarithm of the excess."""
REMEMBERED = 0.9
"""Decay of the mean preserve loss."""
SHRUNK = 2.0
"""Multiple of the bound above which steps are shortened."""

ADAPTED = 1.2
"""Factor by which a probe widens or tightens the bound."""


class Constraint:
    """Multiplier of the preserve loss in the loss of a step.

    The edit minimises the redirect subject to L_p <= bound; the Lagrangian's multiplier rises while
    the mean L_p is above the bound and falls while it is below: dual ascent, in logarithms so
    that it suits losses of any size, with a proportional term (PID Lagrangian, arXiv 2007.03964)
    against swinging. Steps are shortened while the loss is far above the bound.

    Attributes:
        bound: present bound of the preserve loss.
        mean: moving average of the preserve loss; None before the first step.

    Args:
        settings: the bound, and a fixed weight if there is one.
    """

    def __init__(self, settings: Preserve) -> None:
        self._settings = settings
        self.bound = settings.bound
        self._integral = 0.0
        self.mean: float | None = None

    @property
    def multiplier(self) -> float:
        """Present weight of the preserve loss."""
        if self._settings.weight is not None:
            return self._settings.weight
        return math.exp(self._integral + self._excess)

    @property
    def _excess(self) -> float:
        """Logarithm of the mean loss over its bound, within -2 to 2."""
        if not self.mean:
            return 0.0
        return max(-2.0, min(2.0, math.log(self.mean / self.bound)))

    @property
    def step_share(self) -> float:
        """Share of a step's length that the constraint leaves, in (0, 1]."""
        if self._settings.weight is not None or not self.mean:
            return 1.0
        return min(1.0, math.sqrt(SHRUNK * self.bound / self.mean))

    def observe(self, preserve: float) -> None:
        """Follow the preserve loss of a step."""
        before = preserve if self.mean is None else self.mean
        self.mean = REMEMBERED * before + (1 - REMEMBERED) * preserve
        self._integral += ASCENT * self._excess

    def adapt(self, removal_short: bool, retention_short: bool) -> None:
        """Widen the bound if only removal falls short of its target, tighten it if only retention
        does."""
        if removal_short != retention_short:
            self.bound *= ADAPTED if removal_short else 1 / ADAPTED

    def state_dict(self) -> dict[str, Any]:
        """State for ``load_state_dict``."""
        return {"bound": self.bound, "integral": self._integral, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        self.bound, self._integral, self.mean = state["bound"], state["integral"], state["mean"]
