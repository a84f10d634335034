"""No defense: the unmodified model, the role of SD-v1.4 in the paper."""

from __future__ import annotations

from typing import Any

from safegen.defenses import Defense, DefenseIdentity, Undo, register


class NoDefense(Defense):
    """Leave the pipeline unchanged."""

    changes = "nothing"

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        return DefenseIdentity("none")

    def attach(self, pipeline: Any) -> Undo:  # noqa: ARG002
        """See ``Defense.attach``."""
        return lambda: None


@register("none")
def none() -> NoDefense:
    """The undefended model."""
    return NoDefense()
