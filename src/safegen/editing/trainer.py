"""The edit of a pipeline around the algorithm, from resuming to verification."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from safegen.editing.adapters import Trained, trained_form
from safegen.editing.batches import BatchSource
from safegen.editing.constraint import Constraint
from safegen.editing.course import Course
from safegen.editing.gradients import Gradients
from safegen.editing.latents import TripletLatents
from safegen.editing.memory.borrowing import Borrowed, borrowed
from safegen.editing.memory.components import rehearsal_bytes, weight_bytes
from safegen.editing.memory.eight_bit import eight_bit_layers, shrink
from safegen.editing.memory.idle import all_parts, idle_parts
from safegen.editing.memory.lean_layers import lean_layers
from safegen.editing.memory.precision import autocast, frozen_dtype
from safegen.editing.memory.recomputation import recomputation
from safegen.editing.optimizers import Optimizers
from safegen.editing.probes import TARGETS, Probe, Probed, ProbeSources, Target
from safegen.editing.processes import Processes
from safegen.editing.redirect_left import redirect_left
from safegen.editing.rehearsal import Rehearsal
from safegen.editing.run_folder import PACKAGES, EditRecord, RunFolder
from safegen.editing.settings import EditSettings
from safegen.editing.state import TrainingState
from safegen.editing.steps import StepLosses, edit_steps
from safegen.editing.teacher import Teacher
from safegen.editing.text_stream import TextStream
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, fingerprint, scope_names, tensor_digest
from safegen.models.moving import exchanged
from safegen.patches.patch import Patch, base_of
from safegen.version import code_versions


class Edit:
    """One edit of one pipeline.

    ``for record in edit.run(): ...`` trains; ``edit.patch()`` then returns the result. A live
    generator owns the pipeline; however it ends (exhausted, closed, an error or Ctrl-C), the
    pipeline is restored bit for bit.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        triplets: encoded triplets.
        settings: all choices (default: the recommended ones).
        concept: name of the removed concept, kept in the patch.
        run_folder: folder of checkpoints, records (``records.jsonl``) and TensorBoard logs. A
            killed run resumes from its last checkpoint, with the same result.
        keep_pipeline: false saves memory by giving up the pipeline: its frozen weights stay in
            the compute precision, and its autoencoder and text encoders lose their weights.
        probing: what to draw while it trains; with it, the edit ends when the targets are reached
            or nothing is gained, and its result is the best point seen. Some pairs are held back
            for it.
        targets: shares that the probes are to reach.

    Attributes:
        names: names of the changed weights.
        state: training state during ``run``.
        course: findings of the probes.

    Raises:
        SafegenError: the triplets do not fit the model, or it has no self-attention to edit.
    """

    def __init__(
        self,
        pipeline: Any,
        triplets: TripletLatents,
        settings: EditSettings | None = None,
        concept: str = "unsafe",
        run_folder: Path | None = None,
        keep_pipeline: bool = True,
        probing: ProbeSources | None = None,
        targets: Sequence[Target] = TARGETS,
    ) -> None:
        self._began = time.monotonic()
        self.pipeline = pipeline
        held_back = 0 if probing is None else probing.pictures
        self.triplets, self._held_back = triplets.without_last(held_back)
        self.probing = probing
        self.course = Course(targets)
        self.settings = settings or EditSettings()
        self.concept = concept
        self.run_folder = run_folder
        self.denoiser = denoiser_of(pipeline)
        self.names = scope_names(self.denoiser, self.settings.scope)
        triplets.check_fit(pipeline)
        self.base_fingerprint = fingerprint(self.denoiser)
        self._keep_pipeline = keep_pipeline
        self._result: dict[str, torch.Tensor] | None = None
        self.state: TrainingState | None = None
        self._trained: Trained | None = None

    def run(self) -> Generator[EditRecord, None, None]:
        """Train; yields a record per step.

        Raises:
            SafegenError: the loss is not finite, the checkpoint is of another edit, or a weight
                outside the scope changed.
        """
        with ExitStack() as stack:
            processes = stack.enter_context(Processes(next(self.denoiser.parameters()).device))
            folder = RunFolder(self.run_folder, self._identity, writes=processes.index == 0)
            checkpoint = folder.checkpoint()
            weights = stack.enter_context(borrowed(self.denoiser, self._keep_pipeline))
            trained = self._trained = self._prepare(weights, processes)
            if checkpoint is not None and checkpoint["finished"]:
                self.course.load_state_dict(checkpoint["course"])
                average = self.course.best or checkpoint["average"]
            else:
                frozen = self._frozen_digests()
                average = yield from self._train(trained, processes, folder, checkpoint)
                self._refuse_strays(frozen)
            device = processes.device
            self._result = trained.differences({n: v.to(device) for n, v in average.items()})

    def differences(self) -> dict[str, torch.Tensor]:
        """Differences by name during ``run``: average of the weights minus the original."""
        assert self._trained is not None
        assert self.state is not None
        return self._trained.differences(self.state.average)

    def patch(self) -> Patch:
        """Return the result after ``run`` has ended: a change of the scope's weights alone.

        Raises:
            SafegenError: ``run`` has not ended, or a weight of the scope is unchanged.
        """
        if self._result is None:
            raise SafegenError("the edit has not come to its end; take all records of its run()")
        _refuse_unchanged(self._result)
        return Patch(self._result, self.metadata())

    def resident(self) -> dict[str, int]:
        """Bytes that stay allocated between steps during ``run``, as ``EditMemory`` names them."""
        assert self.state is not None
        frozen, trained = weight_bytes(self.denoiser)
        return {
            "frozen": frozen,
            "trained": trained,
            "optimizer": self.state.optimizers.moment_bytes(),
            "average": sum(value.nbytes for value in self.state.average.values()),
            "rehearsal": rehearsal_bytes(self.denoiser, self.settings),
        }

    def metadata(self) -> dict[str, Any]:
        """Metadata of the patch's header."""
        return {
            "base": base_of(self.pipeline, self.base_fingerprint),
            "concept": self.concept,
            "settings": asdict(self.settings),
            "probes": [asdict(found) for found in self.course.probes],
            "triplets": {
                "digest": self.triplets.digest(),
                "unsafe": len(self.triplets.unsafe),
                "benign": len(self.triplets.benign),
                "source": self.triplets.source,
            },
            "versions": code_versions(PACKAGES),
        }

    def _prepare(self, weights: Borrowed, processes: Processes) -> Trained:
        """Place the denoiser on its training device, in its training precision."""
        self.denoiser.to(processes.device)
        settings = self.settings
        trained = trained_form(
            self.denoiser, self.names, settings.optimisation.lora_rank, settings.seed
        )
        self.names = trained.names
        if settings.computation.kept_precision == "int8":
            shrink(self.denoiser, self.names, weights)
        weights.convert_frozen(frozen_dtype(settings))
        return trained

    def _train(
        self,
        trained: Trained,
        processes: Processes,
        folder: RunFolder,
        checkpoint: Mapping[str, Any] | None,
    ) -> Generator[EditRecord, None, Mapping[str, torch.Tensor]]:
        """Yield a record per step and return the averaged weights at the best point."""
        settings, denoiser = self.settings, self.denoiser
        steps, every = settings.optimisation.steps, settings.computation.checkpoint_every
        source = BatchSource(self.pipeline, self.triplets, settings)
        probe = self._probe(processes, source)
        state = self.state = self._start(trained, source)
        start = 0
        if checkpoint is not None:
            state.restore(checkpoint)
            self.course.load_state_dict(checkpoint["course"])
            start = checkpoint["step"]
            self._began -= checkpoint["seconds"]
        with (
            folder.recording(start),
            idle_parts(self.pipeline, self._keep_pipeline or probe is not None),
            lean_layers(denoiser),
            eight_bit_layers(denoiser),
            recomputation(denoiser, settings.computation.gradient_checkpointing),
        ):
            model = processes.model(denoiser)
            teacher = self._teacher(trained, source)
            text = TextStream(denoiser, trained, settings.preserve.text)
            gradients = Gradients(model, source, state.optimizers, processes, teacher, text)
            began = time.monotonic()
            for losses in edit_steps(state, source, gradients, settings, start):
                done = losses.step + 1
                record = self._record(losses, (time.monotonic() - began) / (done - start))
                folder.add(record)
                yield record
                probed = self._ends_cycle(done)
                if probe is not None and probed:
                    folder.add_probe(self._note(probe(done), state))
                early = done < settings.optimisation.least_steps
                finished = done == steps or (self.course.finished and not early)
                if probed or finished or done % every == 0:
                    progress = {"step": done, "seconds": time.monotonic() - self._began}
                    course = {"finished": finished, "course": self.course.state_dict()}
                    folder.save({**progress, **course, **state.saved()})
                if finished:
                    break
        return self.course.best or state.average

    def _teacher(self, trained: Trained, source: BatchSource) -> Teacher | None:
        if self.settings.preserve.target != "teacher":
            return None
        return Teacher(self.denoiser, trained, source)

    def _ends_cycle(self, done: int) -> bool:
        optimisation = self.settings.optimisation
        return done % optimisation.cycle == 0 or done == optimisation.steps

    def _probe(self, processes: Processes, source: BatchSource) -> Callable[[int], Probed] | None:
        """Draw the unedited model's pictures; returns a probe of the averaged weights."""
        if self.probing is None:
            return None
        with self._drawing(processes):
            probe = Probe(self.pipeline, self.probing, self._held_back.unsafe)

        def averaged(done: int) -> Probed:
            assert self.state is not None
            with self._drawing(processes), exchanged(self.state.weights, self.state.average):
                left = redirect_left(self.denoiser, source, self._held_back)
                found = replace(probe(done), redirect=left)
                return processes.agreed(found)  # else one process might stop alone

        return averaged

    @contextmanager
    def _drawing(self, processes: Processes) -> Iterator[None]:
        """Let the whole pipeline draw in the block, in the edit's precision."""
        device = processes.device
        with all_parts(self.pipeline, device), autocast(self.settings, device):
            yield

    def _note(self, found: Probed, state: TrainingState) -> Probed:
        self.course.note(found, state.average)
        kept_short = self.course.falls_short("retention", "near-miss-retention")
        state.constraint.adapt(self.course.falls_short("removal"), kept_short)
        return found

    def _start(self, trained: Trained, source: BatchSource) -> TrainingState:
        weights = trained.parameters
        average = {name: weight.detach().clone() for name, weight in weights.items()}
        scaled = self.settings.computation.precision == "fp16"
        optimizers = Optimizers(weights, trained.lengths(), self.settings.optimisation, scaled)
        rehearsal = Rehearsal(self.denoiser, source, self.settings)
        constraint = Constraint(self.settings.preserve)
        return TrainingState(weights, average, optimizers, source.conditions, rehearsal, constraint)

    def _record(self, losses: StepLosses, pace: float) -> EditRecord:
        settings = self.settings
        return EditRecord(
            step=losses.step + 1,
            steps=settings.optimisation.steps,
            loss=settings.redirect.weight * losses.redirect + losses.multiplier * losses.preserve,
            redirect=losses.redirect,
            preserve=losses.preserve,
            multiplier=losses.multiplier,
            step_share=losses.share,
            seconds=time.monotonic() - self._began,
            seconds_left=pace * (settings.optimisation.steps - losses.step - 1),
        )

    @cached_property
    def _identity(self) -> str:
        """Digest of everything that the result depends on; other runs' checkpoints are refused."""
        parts = [self.base_fingerprint, self.triplets.digest(), asdict(self.settings)]
        if self.probing is not None:
            parts.append([str(target) for target in self.course.targets])
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _frozen_digests(self) -> dict[str, bytes]:
        named = self.denoiser.named_parameters()
        return {name: tensor_digest(weight) for name, weight in named if not weight.requires_grad}

    def _refuse_strays(self, before: Mapping[str, bytes]) -> None:
        """Refuse changes of weights outside the scope."""
        now = self._frozen_digests()
        strayed = sorted(name for name, digest in before.items() if now.get(name) != digest)
        if strayed:
            raise SafegenError(f"the edit changed {len(strayed)} weights it must not: {strayed[0]}")


def _refuse_unchanged(differences: Mapping[str, torch.Tensor]) -> None:
    """Refuse unchanged weights of the scope."""
    still = [name for name, difference in differences.items() if not bool(difference.any())]
    if still:
        raise SafegenError(
            f"the edit left {len(still)} of its weights as they were ({still[0]}); "
            "train for more steps or at a higher learning rate"
        )
