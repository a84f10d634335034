"""The edit as one call, and what it would take, told beforehand."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safegen.editing.batches import TEACHER_BATCH
from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.memory.components import EditMemory
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
"""Steps of a rehearsal that a plan tries."""


def edit(
    pipeline: Any,
    triplets: TripletLatents | TripletSource,
    settings: EditSettings | None = None,
    *,
    concept: str = "unsafe",
    run_folder: str | Path | None = None,
    on_record: Callable[[EditRecord], None] | None = None,
    on_teacher: Callable[[int, int], None] | None = None,
    keep_pipeline: bool = True,
) -> Patch:
    """Train the edit and return its patch; the pipeline is then as it was, also after an error.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets, or a source of pictures, which is encoded first.
        settings: all choices; the defaults are the recommended ones.
        concept: name of what is removed, kept in the patch.
        run_folder: where checkpoints and logs go; a killed run goes on from there.
        on_record: called after every step.
        on_teacher: called with how many pictures of the teacher's pool are done, and of how many.
        keep_pipeline: false gives the pipeline up, which takes less memory: its frozen weights are
            not remembered in full precision, its autoencoder and text encoders not at all.

    Raises:
        SafegenError: nothing would change, the loss is not finite, or the inputs do not fit.
    """
    if not isinstance(triplets, TripletLatents):
        triplets = encode_triplets(pipeline, triplets)
    folder = Path(run_folder) if run_folder is not None else None
    run = Edit(pipeline, triplets, settings, concept, folder, keep_pipeline, on_teacher)
    with closing(run.run()) as records:
        for record in records:
            if on_record is not None:
                on_record(record)
    return run.patch()


@dataclass(frozen=True)
class EditPlan:
    """What an edit would train and take.

    Attributes:
        trained: number of values that the optimizer moves.
        total: number of the denoiser's weights.
        names: the trained parameters.
        teacher_seconds: for the teacher's pool, from the pace of the part that was tried.
        step_seconds: for all steps, moves of the adversaries included, likewise.
        rehearsal_seconds: for all rehearsals, likewise.
        predicted: memory, from the model's configuration; None with plain kernels.
        measured: memory in the steps that were tried; None with plain kernels.
        latent_bytes: the triplets' latents, in the processor's memory.
        peak_bytes: highest memory of this process (or of the GPU) in the steps tried; None
            where the operating system does not say.
    """

    trained: int
    total: int
    names: list[str]
    teacher_seconds: float
    step_seconds: float
    rehearsal_seconds: float
    predicted: EditMemory | None
    measured: EditMemory | None
    latent_bytes: int
    peak_bytes: int | None

    @property
    def seconds(self) -> float:
        """For the whole edit."""
        return self.teacher_seconds + self.step_seconds + self.rehearsal_seconds


def predict(pipeline: Any, triplets: TripletLatents, settings: EditSettings) -> EditMemory:
    """The memory that an edit would take on its device, before anything is tried."""
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
    """Try a few steps, throw them away, and say what the whole edit would take.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: its latents.
        settings: of the edit.
        trial_steps: timed steps, an even number, since the adversaries move in every other one.
        on_prediction: called with the predicted memory before anything is tried, which may not
            fit.
    """
    predicted = None if plain_kernels() else predict(pipeline, triplets, settings)
    if on_prediction is not None and predicted is not None:
        on_prediction(predicted)
    total = sum(parameter.numel() for parameter in denoiser_of(pipeline).parameters())
    # The teacher answers for two batches only, of which the first also pays for set-up.
    pool = min(settings.preserve.teacher_pool, 2 * TEACHER_BATCH)
    trial = settings.changed(steps=trial_steps + 3, teacher_pool=pool)
    teacher = _Pace()
    run = Edit(pipeline, triplets, trial, on_teacher=teacher.tell)
    with closing(run.run()) as steps:
        next(steps)  # the first step also pays for set-up
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
        teacher_seconds=teacher.seconds_each * settings.preserve.teacher_pool,
        step_seconds=pace * settings.optimisation.steps,
        rehearsal_seconds=rehearsal_seconds,
        predicted=predicted,
        measured=measured,
        latent_bytes=triplets.nbytes,
        peak_bytes=_peak_bytes(),
    )


class _Pace:
    """How long what comes in batches takes, from the last batch."""

    def __init__(self) -> None:
        self._told: list[tuple[int, float]] = []

    def tell(self, done: int, total: int) -> None:
        """So many are done."""
        del total
        self._told.append((done, time.monotonic()))

    @property
    def seconds_each(self) -> float:
        """0 where nothing came."""
        if len(self._told) < 2:
            return 0.0
        (before, began), (done, ended) = self._told[-2:]
        return (ended - began) / (done - before)


def _rehearsal_seconds(rehearsal: Rehearsal, steps: int) -> float:
    """For the rehearsals of an edit of so many steps, from the first moments of one."""
    times = rehearsal.times(steps)
    if not times:
        return 0.0
    began = time.monotonic()
    rehearsal.rehearse(0, TRIED)
    return times * STEPS / TRIED * (time.monotonic() - began)


def _measure(run: Edit, steps: Iterator[EditRecord]) -> EditMemory:
    """Memory in two more steps, one of which moves the adversaries."""
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
