"""The concept's text as negative prompt, beside the one that the caller gives."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo, register
from safegen.defenses._text import InactiveGuidanceWarning, on_encode_prompt
from safegen.errors import SafegenError

_NAMES = ("negative_prompt", "negative_prompt_2")


@dataclass(frozen=True)
class NegativePrompt(Defense):
    """Adds a text to every negative prompt.

    Attributes:
        text: what guidance moves away from.
    """

    text: str

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        return DefenseIdentity("negative-prompt", {"text": self.text})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        return on_encode_prompt(pipeline, self._add)

    def _add(self, arguments: dict[str, Any]) -> None:
        if not arguments["do_classifier_free_guidance"]:
            warnings.warn(
                "negative-prompt does nothing without classifier-free guidance; "
                "use a guidance scale above 1",
                InactiveGuidanceWarning,
                stacklevel=2,
            )
            return
        if arguments.get("negative_prompt_embeds") is not None:
            raise SafegenError(
                "negative-prompt cannot add its text to embeddings; pass negative_prompt as text"
            )
        for name in _NAMES:
            if name == "negative_prompt" or arguments.get(name) is not None:
                arguments[name] = self._joined(arguments[name], _count(arguments))

    def _joined(self, given: str | list[str] | None, count: int | None) -> str | list[str]:
        """``given`` with the text added; one for all if ``count`` is None, else a list."""
        if given is None or isinstance(given, str):
            joined = f"{given}, {self.text}" if given else self.text
            return joined if count is None else [joined] * count
        return [f"{each}, {self.text}" if each else self.text for each in given]


def _count(arguments: dict[str, Any]) -> int | None:
    """How many prompts a call has; None for a single one given as text."""
    prompt = arguments["prompt"]
    if prompt is None:
        return len(arguments["prompt_embeds"])
    return None if isinstance(prompt, str) else len(prompt)


@register("negative-prompt")
def negative_prompt(*, concept: Concept) -> NegativePrompt:
    """The concept's text as negative prompt."""
    return NegativePrompt(concept.text)
