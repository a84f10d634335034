"""The edit as one call, and what it would take, told beforehand."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safegen.editing.latents import TripletLatents, encode_triplets
from safegen.editing.memory.prediction import AllocatedMemory, EditMemory, predict_memory
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit, EditRecord
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import encode_prompts
from safegen.patches.patch import Patch
from safegen.triplets.source import TripletSource


def edit(
    pipeline: Any,
    triplets: TripletLatents | TripletSource,
    settings: EditSettings | None = None,
    *,
    concept: str = "unsafe",
    run_folder: str | Path | None = None,
    on_record: Callable[[EditRecord], None] | None = None,
    keep_pipeline: bool = True,
) -> Patch:
    """Train the edit and return its patch; the pipeline itself is left as it was.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets, or a source of pictures, which is encoded first.
        settings: all choices; the defaults are the recommended ones.
        concept: name of what is removed, kept in the patch.
        run_folder: where checkpoints and logs go; a killed run goes on from there.
        on_record: called after every step.
        keep_pipeline: false gives the pipeline up, which takes less memory: its frozen weights are
            not remembered in full precision, its autoencoder and text encoders not at all.

    Raises:
        SafegenError: nothing would change, the loss is not finite, or the inputs do not fit.
    """
    if not isinstance(triplets, TripletLatents):
        triplets = encode_triplets(pipeline, triplets)
    folder = Path(run_folder) if run_folder is not None else None
    run = Edit(pipeline, triplets, settings, concept, folder, keep_pipeline)
    for record in run.run():
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
        seconds: for all steps, from the pace of the steps that were tried.
        predicted: memory, from the model's configuration.
        measured: memory in the steps that were tried.
        latent_bytes: the triplets' latents, in the processor's memory.
        peak_bytes: highest memory of this process (or of the GPU) in the steps tried.
    """

    trained: int
    total: int
    names: list[str]
    seconds: float
    predicted: EditMemory
    measured: EditMemory
    latent_bytes: int
    peak_bytes: int

    @property
    def training_bytes(self) -> int:
        """Gradients, the optimizer's moments and the moving average."""
        return self.measured.gradients + self.measured.optimizer + self.measured.average


def predict(pipeline: Any, triplets: TripletLatents, settings: EditSettings) -> EditMemory:
    """The memory that an edit would take on its device, before anything is tried."""
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

    ``on_prediction`` is called with the predicted memory before anything is tried, which may not
    fit.
    """
    predicted = predict(pipeline, triplets, settings)
    if on_prediction is not None:
        on_prediction(predicted)
    total = sum(parameter.numel() for parameter in denoiser_of(pipeline).parameters())
    # The teacher answers for what the trial draws only.
    trial = settings.changed(steps=trial_steps + 3, teacher_pool=settings.data.preserve_batch)
    run = Edit(pipeline, triplets, trial)
    steps = run.run()
    next(steps)  # the first step also pays for set-up
    began = time.monotonic()
    for _ in range(trial_steps):
        next(steps)
    pace = (time.monotonic() - began) / trial_steps
    measured = _measure(run, steps)
    steps.close()
    run.discard()
    return EditPlan(
        trained=run.trained_count,
        total=total,
        names=run.names,
        seconds=pace * settings.optimisation.steps,
        predicted=predicted,
        measured=measured,
        latent_bytes=triplets.nbytes,
        peak_bytes=_peak_bytes(),
    )


def _measure(run: Edit, steps: Iterator[EditRecord]) -> EditMemory:
    """Memory in two more steps, one of which moves the adversaries."""
    with AllocatedMemory() as seen:
        next(steps)
        next(steps)
    resident = run.resident()
    gradients = resident["trained"]
    return EditMemory(**resident, gradients=gradients, activations=max(0, seen.peak - gradients))


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
