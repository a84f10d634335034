"""Hooks of text-dependent defenses on a pipeline's calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from safegen.defenses import Undo
from safegen.models.conditioning import check_takes_text


class InactiveGuidanceWarning(UserWarning):
    """A defense that needs classifier-free guidance ran without it."""


def on_encode_prompt(pipeline: Any, change: Callable[[dict[str, Any]], None]) -> Undo:
    """Let ``change`` modify the arguments of every ``encode_prompt`` of the pipeline.

    A pipeline encodes its prompt once per call, before the first step, so this also marks the start
    of a call.
    """
    check_takes_text(pipeline)
    before = vars(pipeline).get("encode_prompt")
    original = pipeline.encode_prompt
    signature = inspect.signature(original)

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        change(bound.arguments)
        return original(*bound.args, **bound.kwargs)

    pipeline.encode_prompt = encode_prompt

    def undo() -> None:
        del pipeline.encode_prompt
        if before is not None:
            pipeline.encode_prompt = before

    return undo
