"""The edit as one call, and its cost estimated beforehand."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.memory.components import EditMemory
from safegen.editing.probes import TARGETS, ProbeSources, Target
from safegen.editing.rehearsal import STEPS, Rehearsal
from safegen.editing.run_folder import EditRecord
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import encode_prompts
from safegen.models.kernels import plain_kernels
from safegen.patches.patch import Patch
from safegen.triplets.source import TripletSource

TRIED = 2
"""Rehearsal steps that a plan tries."""


def edit(
    pipeline: Any,
    triplets: TripletLatents | TripletSource,
    settings: EditSettings | None = None,
    *,
    concept: str = "unsafe",
    run_folder: str | Path | None = None,
    on_record: Callable[[EditRecord], None] | None = None,
    keep_pipeline: bool = True,
    probing: ProbeSources | None = None,
    targets: Sequence[Target] = TARGETS,
) -> Patch:
    """Train the edit and return its patch; the pipeline is restored, also after an error.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets, or a source of pictures to encode first.
        settings: all choices (default: the recommended ones).
        concept: name of the removed concept, kept in the patch.
        run_folder: folder of checkpoints and logs; a killed run resumes from it.
        on_record: callback after every step.
        keep_pipeline: false saves memory by giving up the pipeline: the full-precision frozen
            weights, the autoencoder and the text encoders are not kept.
        probing: what to draw while it trains, which decides when the edit ends.
        targets: shares that the probes are to reach.

    Raises:
        SafegenError: nothing would change, the loss is not finite, or the inputs do not fit.
    """
    if not isinstance(triplets, TripletLatents):
        triplets = encode_triplets(pipeline, triplets)
    folder = Path(run_folder) if run_folder is not None else None
    run = Edit(pipeline, triplets, settings, concept, folder, keep_pipeline, probing, targets)
    with closing(run.run()) as records:
        for record in records:
            if on_record is not None:
                on_record(record)
    return run.patch()


@dataclass(frozen=True)
class EditPlan:
    """Size and cost of an edit.

    Attributes:
        trained: number of trained values.
        total: number of the denoiser's weights.
        names: names of the trained parameters.
        step_seconds: time of all steps, moves of the adversaries included, extrapolated from the
            tried ones.
        rehearsal_seconds: time of all rehearsals, likewise.
        predicted: memory predicted from the model's configuration; None with plain kernels.
        measured: memory of the tried steps; None with plain kernels.
        latent_bytes: size of the triplets' latents in CPU memory.
        peak_bytes: peak memory of this process (or the GPU) in the tried steps; None if the
            operating system does not report it.
    """

    trained: int
    total: int
    names: list[str]
    step_seconds: float
    rehearsal_seconds: float
    predicted: EditMemory | None
    measured: EditMemory | None
    latent_bytes: int
    peak_bytes: int | None

    @property
    def seconds(self) -> float:
        """Time of the whole edit."""
        return self.step_seconds + self.rehearsal_seconds


def predict(pipeline: Any, triplets: TripletLatents, settings: EditSettings) -> EditMemory:
    """Predict an edit's memory on its device, without trying a step."""
    from safegen.editing.memory.prediction import predict_memory

    condition = encode_prompts(pipeline, [""])
    return predict_memory(denoiser_of(pipeline), condition, triplets.unsafe.shape[1:], settings)


def plan(
    pipeline: Any,
    triplets: TripletLatents,
    settings: EditSettings,
    trial_steps: int = 2,
    on_prediction: Callable[[EditMemory], None] | None = None,
) -> EditPlan:
    """Try a few steps, discard them, and estimate the cost of the whole edit.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets.
        settings: settings of the edit.
        trial_steps: timed steps; an even number, since the adversaries move in every other one.
        on_prediction: callback with the predicted memory before the first try, which may not
            fit.
    """
    predicted = None if plain_kernels() else predict(pipeline, triplets, settings)
    if on_prediction is not None and predicted is not None:
        on_prediction(predicted)
    total = sum(parameter.numel() for parameter in denoiser_of(pipeline).parameters())
    run = Edit(pipeline, triplets, settings.changed(steps=trial_steps + 3))
    with closing(run.run()) as steps:
        next(steps)  # the first step includes set-up
        began = time.monotonic()
        for _ in range(trial_steps):
            next(steps)
        pace = (time.monotonic() - began) / trial_steps
        measured = None if plain_kernels() else _measure(run, steps)
        assert run.state is not None
        rehearsal_seconds = _rehearsal_seconds(run.state.rehearsal, settings.optimisation.steps)
        trained = sum(weight.numel() for weight in run.state.weights.values())
    return EditPlan(
        trained=trained,
        total=total,
        names=run.names,
        step_seconds=pace * settings.optimisation.steps,
        rehearsal_seconds=rehearsal_seconds,
        predicted=predicted,
        measured=measured,
        latent_bytes=triplets.nbytes,
        peak_bytes=_peak_bytes(),
    )


def _rehearsal_seconds(rehearsal: Rehearsal, steps: int) -> float:
    """Extrapolate the time of all rehearsals from the first steps of one."""
    times = rehearsal.times(steps)
    if not times:
        return 0.0
    began = time.monotonic()
    rehearsal.rehearse(0, TRIED)
    return times * STEPS / TRIED * (time.monotonic() - began)


def _measure(run: Edit, steps: Iterator[EditRecord]) -> EditMemory:
    """Measure the memory of two more steps, one of which moves the adversaries."""
    from safegen.editing.memory.prediction import AllocatedMemory

    with AllocatedMemory() as seen:
        next(steps)
        next(steps)
    resident = run.resident()
    gradients = resident["trained"]
    return EditMemory(**resident, gradients=gradients, activations=max(0, seen.peak - gradients))


def _peak_bytes() -> int | None:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
