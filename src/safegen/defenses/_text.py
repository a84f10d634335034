"""What text-dependent defenses need of a pipeline: its text encoder, and a hold on its calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from safegen.defenses import Undo
from safegen.errors import SafegenError
from safegen.models.conditioning import POOLED
from safegen.models.conditioning import TextCondition as TextCondition


class InactiveGuidanceWarning(UserWarning):
    """A defense that works through classifier-free guidance had none to work through."""


@torch.no_grad()
def encode_text(
    pipeline: Any, text: str | list[str], device: torch.device | str | None = None, **options: Any
) -> TextCondition:
    """Encode texts as the pipeline encodes prompts, past any hold on its calls.

    Args:
        pipeline: a diffusers pipeline with ``encode_prompt``.
        text: the words; those of each text where it is a list.
        device: where to; the pipeline's own if None.
        options: passed on to ``encode_prompt``, such as ``clip_skip``.
    """
    _check(pipeline)
    encoded = type(pipeline).encode_prompt(
        pipeline,
        prompt=text,
        device=device or pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **options,
    )
    pooled = encoded[2] if len(encoded) > 2 else None
    return TextCondition(encoded[0], added={} if pooled is None else {POOLED: pooled})


def on_encode_prompt(pipeline: Any, change: Callable[[dict[str, Any]], None]) -> Undo:
    """Have ``change`` see, and alter, the arguments of every ``encode_prompt`` of the pipeline.

    A pipeline encodes its prompt once in each call, before the first step, so this also tells
    where a call begins.
    """
    _check(pipeline)
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


def _check(pipeline: Any) -> None:
    if not hasattr(type(pipeline), "encode_prompt"):
        raise SafegenError(
            f"{type(pipeline).__name__} has no encode_prompt, so defenses that work with text "
            "cannot be put on it; use a Stable Diffusion pipeline"
        )
