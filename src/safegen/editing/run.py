"""The edit as one call, and what it would take, told beforehand."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.patch import Patch
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit, EditRecord
from safegen.triplets.source import TripletSource


def edit(
    pipeline: Any,
    triplets: TripletLatents | TripletSource,
    settings: EditSettings | None = None,
    *,
    concept: str = "unsafe",
    run_folder: str | Path | None = None,
    on_record: Callable[[EditRecord], None] | None = None,
) -> Patch:
    """Train the edit and return its patch; the pipeline itself is left as it was.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets, or a source of pictures, which is encoded first.
        settings: all choices; the defaults are the recommended ones.
        concept: name of what is removed, kept in the patch.
        run_folder: where checkpoints and logs go; a killed run goes on from there.
        on_record: called after every step.

    Raises:
        SafegenError: nothing would change, the loss is not finite, or the inputs do not fit.
    """
    if not isinstance(triplets, TripletLatents):
        triplets = encode_triplets(pipeline, triplets)
    folder = Path(run_folder) if run_folder is not None else None
    run = Edit(pipeline, triplets, settings, concept, folder)
    for record in run.run():
        if on_record is not None:
            on_record(record)
    return run.patch()


@dataclass(frozen=True)
class EditPlan:
    """What an edit would train and take.

    Attributes:
        trained: number of self-attention weights.
        total: number of the denoiser's weights.
        names: the trained parameters.
        seconds: for all steps, from the pace of the steps that were tried.
        weight_bytes: the denoiser's.
        training_bytes: gradients, AdamW's two moments and the moving average.
        peak_bytes: highest memory of this process (or of the GPU) in the steps tried.
    """

    trained: int
    total: int
    names: list[str]
    seconds: float
    weight_bytes: int
    training_bytes: int
    peak_bytes: int


def plan(
    pipeline: Any, triplets: TripletLatents, settings: EditSettings, trial_steps: int = 2
) -> EditPlan:
    """Try a few steps, throw them away, and say what the whole edit would take."""
    run = Edit(pipeline, triplets, settings)
    parameters = dict(run.denoiser.named_parameters())
    trained = sum(parameters[name].numel() for name in run.names)
    weight_bytes = sum(p.numel() * p.element_size() for p in parameters.values())
    steps = run.run()
    next(steps)  # the first step also pays for set-up
    began = time.monotonic()
    tried = [next(steps) for _ in range(min(trial_steps, settings.steps - 1))]
    pace = (time.monotonic() - began) / max(1, len(tried))
    steps.close()
    run.discard()
    return EditPlan(
        trained=trained,
        total=sum(p.numel() for p in parameters.values()),
        names=run.names,
        seconds=pace * settings.steps,
        weight_bytes=weight_bytes,
        training_bytes=4 * 4 * trained,
        peak_bytes=_peak_bytes(),
    )


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
