"""Negative prompt with the concept's text, beside the caller's own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
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
        guidance: scale of classifier-free guidance, in place of the prompts' own; None keeps it.
    """

    text: str
    guidance: float | None = None

    changes = "sampling"

    def __post_init__(self) -> None:
        if self.guidance is not None and self.guidance <= 1:
            raise SafegenError(
                f"negative-prompt: guidance must be above 1, not {self.guidance:g}; at 1 a "
                "negative prompt has no effect"
            )

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        scale = {} if self.guidance is None else {"guidance": self.guidance}
        return DefenseIdentity("negative-prompt", {"text": self.text, **scale})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        if self.guidance is not None and not hasattr(type(pipeline), "guidance_scale"):
            raise SafegenError(
                f"negative-prompt: {type(pipeline).__name__} has no guidance scale to set; leave "
                "out guidance"
            )
        return on_encode_prompt(pipeline, partial(self._begin, pipeline))

    def _begin(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        """Change a call before its first step, when the pipeline encodes its prompt."""
        self._add(arguments)
        if self.guidance is not None and arguments["do_classifier_free_guidance"]:
            # Diffusers' pipelines keep a call's scale here, and read it at every step.
            pipeline._guidance_scale = self.guidance

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
def negative_prompt(
    *, concept: Concept, words: tuple[str, ...] = (), guidance: float | None = None
) -> NegativePrompt:
    """Negative prompt with the given words, by default the concept's text."""
    return NegativePrompt(", ".join(words) or concept.text, guidance)
