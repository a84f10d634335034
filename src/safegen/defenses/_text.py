"""What text-dependent defenses need of a pipeline: a hold on its calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from safegen.defenses import Undo
from safegen.models.conditioning import check_takes_text


class InactiveGuidanceWarning(UserWarning):
    """A defense that works through classifier-free guidance had none to work through."""


def on_encode_prompt(pipeline: Any, change: Callable[[dict[str, Any]], None]) -> Undo:
    """Have ``change`` see, and alter, the arguments of every ``encode_prompt`` of the pipeline.

    A pipeline encodes its prompt once in each call, before the first step, so this also tells
    where a call begins.
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
