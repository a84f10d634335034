"""Negative prompt with the concept's text, beside the caller's own."""

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
    """Add a text to every negative prompt.

    Attributes:
        text: text that guidance moves away from.
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
        """Add the text to ``given``; one text for all if ``count`` is None, else a list."""
        if given is None or isinstance(given, str):
            joined = f"{given}, {self.text}" if given else self.text
            return joined if count is None else [joined] * count
        return [f"{each}, {self.text}" if each else self.text for each in given]


def _count(arguments: dict[str, Any]) -> int | None:
    """Count the prompts of a call; None for a single text."""
    prompt = arguments["prompt"]
    if prompt is None:
        return len(arguments["prompt_embeds"])
    return None if isinstance(prompt, str) else len(prompt)


@register("negative-prompt")
def negative_prompt(*, concept: Concept) -> NegativePrompt:
    """Negative prompt with the concept's text."""
    return NegativePrompt(concept.text)
