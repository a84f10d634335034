"""The edit itself: trains self-attention, yields records, survives being killed."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from safegen.averaging import update_average
from safegen.checkpoints import load_state, save_state
from safegen.editing.adapters import trained_form
from safegen.editing.batches import Batch, BatchSource
from safegen.editing.latents import TripletLatents
from safegen.editing.memory.idle import IdleParts
from safegen.editing.memory.lean_layers import lean_layers
from safegen.editing.memory.precision import MIXED, FrozenWeights, frozen_dtype
from safegen.editing.memory.prediction import rehearsal_bytes, weight_bytes
from safegen.editing.memory.recomputation import recomputation
from safegen.editing.objective import (
    bounded_weight,
    clean_latent_loss,
    guided_latent_loss,
    output_loss,
    paper_target,
)
from safegen.editing.optimizers import moment_bytes, optimizers_for, set_rate
from safegen.editing.rehearsal import Rehearsal
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, fingerprint, scope_names, tensor_digest
from safegen.models.conditioning import TextCondition
from safegen.models.denoising import predict
from safegen.models.prediction import clean_latent, output_for, signal_and_noise
from safegen.patches.patch import Patch
from safegen.version import __version__

RECORDS = "records.jsonl"
ATTACK_EVERY = 2
"""Steps between two moves of the adversaries: each costs as much as a pass of the denoiser."""
SETTLING = 0.2
"""Seconds between the last exchange of several processes and the end of their group."""


@dataclass(frozen=True)
class EditRecord:
    """What one step reports.

    Attributes:
        step: steps done, from 1.
        steps: steps in all.
        loss: weighted sum of the two parts.
        redirect: loss of the unsafe half (L_m).
        preserve: loss of the benign half (L_p).
        learning_rate: used in this step.
        seconds: since the edit began, interruptions left out.
        seconds_left: estimated from this run's pace.
    """

    step: int
    steps: int
    loss: float
    redirect: float
    preserve: float
    learning_rate: float
    seconds: float
    seconds_left: float


def read_records(run_folder: Path) -> list[EditRecord]:
    """The records that an edit left in its run folder, those before an interruption included."""
    lines = (run_folder / RECORDS).read_text().splitlines()
    return [EditRecord(**json.loads(line)) for line in lines]


class Edit:
    """One edit of one pipeline.

    ``for record in edit.run(): ...`` trains; ``edit.patch()`` then verifies and returns the
    result, with the pipeline's weights back as they were. With a ``run_folder``, checkpoints,
    records (``records.jsonl``) and TensorBoard logs are kept there, and a run that was killed
    goes on from its last checkpoint to the result it would have had. With ``keep_pipeline``
    false, which saves memory, the pipeline is of no use afterwards: its frozen weights stay in the
    precision of the computation, and its autoencoder and text encoders are given up.
    """

    def __init__(
        self,
        pipeline: Any,
        triplets: TripletLatents,
        settings: EditSettings | None = None,
        concept: str = "unsafe",
        run_folder: Path | None = None,
        keep_pipeline: bool = True,
    ) -> None:
        self._began = time.monotonic()
        if triplets.vae != fingerprint(pipeline.vae):
            raise SafegenError(
                "the triplets were encoded with another autoencoder than this model's; "
                "encode them again with 'safegen triplets'"
            )
        self.pipeline = pipeline
        self.triplets = triplets
        self.settings = settings or EditSettings()
        self.concept = concept
        self.run_folder = run_folder
        AcceleratorState._reset_state()  # else a second edit could not have another precision
        self.accelerator = Accelerator(
            mixed_precision=MIXED[self.settings.computation.precision],
            cpu=pipeline.device.type == "cpu",
            log_with="tensorboard" if run_folder else None,
            project_dir=run_folder,
        )
        self.denoiser = denoiser_of(pipeline)
        self.base_fingerprint = fingerprint(self.denoiser)
        self._trained = trained_form(
            self.denoiser,
            scope_names(self.denoiser, self.settings.scope),
            self.settings.optimisation.lora_rank,
            self.settings.seed,
        )
        self.names = self._trained.names
        self._parameters = self._trained.parameters
        self._frozen = FrozenWeights(self.denoiser, frozen_dtype(self.settings), keep_pipeline)
        self._digests = self._digest_weights()
        self._source = BatchSource(pipeline, triplets, self.settings)
        self._rehearsal = Rehearsal(self.denoiser, self._source, self.settings)
        self._idle = IdleParts(pipeline, keep_pipeline)
        self._average: dict[str, torch.Tensor] = {}
        self._optimizers: list[Any] = []

    def run(self) -> Generator[EditRecord, None, None]:
        """Train; yields a record a step."""
        optimizers = optimizers_for(self._parameters.values(), self.settings.optimisation)
        self._average = {n: p.detach().clone() for n, p in self._parameters.items()}
        start = self._resume(optimizers)
        model, *self._optimizers = self.accelerator.prepare(self.denoiser, *optimizers)
        self._start_log(start)
        began = time.monotonic()
        try:
            with (
                lean_layers(self.denoiser),
                recomputation(self.denoiser, self.settings.computation.gradient_checkpointing),
            ):
                for step in range(start, self.settings.optimisation.steps):
                    losses = self._step(model, step)
                    pace = (time.monotonic() - began) / (step + 1 - start)
                    yield self._record(step, losses, pace)
                    self._checkpoint(step + 1)
        finally:
            self._let_go_of_group()
            self.accelerator.end_training()
            self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)

    def _let_go_of_group(self) -> None:
        """Give gloo's threads the time to drop their last tensors, for which they need Python's
        lock: the end of the group waits for these threads, and holds it."""
        if self.accelerator.num_processes > 1:
            time.sleep(SETTLING)

    @property
    def trained_count(self) -> int:
        """Number of values that the optimizer moves."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def resident(self) -> dict[str, int]:
        """Bytes that stay from step to step, by component as ``EditMemory`` names them."""
        frozen, trained = weight_bytes(self.denoiser)
        return {
            "frozen": frozen,
            "trained": trained,
            "optimizer": moment_bytes(self._optimizers),
            "average": sum(value.nbytes for value in self._average.values()),
            "rehearsal": rehearsal_bytes(self.denoiser, self.settings),
        }

    def differences(self) -> dict[str, torch.Tensor]:
        """What the moving average makes of the weights so far: by name, minus the original."""
        return self._trained.differences(self._average)

    def patch(self) -> Patch:
        """The result: verified to change exactly the weights of the scope."""
        differences = self.differences()
        self._verify(differences)
        self.discard()
        return Patch(differences, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """What the patch's header says of how it came about."""
        return {
            "base": {
                "name": str(getattr(self.pipeline, "name_or_path", "") or "unknown"),
                "class": type(self.denoiser).__name__,
                "fingerprint": self.base_fingerprint,
            },
            "concept": self.concept,
            "settings": asdict(self.settings),
            "triplets": {
                "digest": self.triplets.digest(),
                "unsafe": len(self.triplets.unsafe),
                "benign": len(self.triplets.benign),
                "source": self.triplets.source,
            },
            "versions": {
                "safegen": __version__,
                **{name: version(name) for name in ("torch", "diffusers", "transformers")},
            },
        }

    def _step(self, model: Any, step: int) -> tuple[float, float]:
        sums = [0.0, 0.0]
        if self._rehearsal.is_due(step):
            self._rehearsal.rehearse(step)
        for part in range(self.settings.optimisation.gradient_accumulation):
            unsafe, benign = self._source.halves(step, part)
            with self._rehearsal.moved(step):
                losses = [self._learn(model, unsafe, step, redirecting=True)]
            losses += [self._learn(model, benign, step, redirecting=False)]
            shared = self.accelerator.reduce(torch.stack(losses), reduction="mean")
            shares = shared / self.settings.optimisation.gradient_accumulation
            sums = [total + float(value) for total, value in zip(sums, shares, strict=True)]
        if not all(math.isfinite(value) for value in sums):
            raise SafegenError(
                f"step {step + 1}: the loss is {sums[0]} (redirect), {sums[1]} (preserve); "
                "lower the learning rate or use --precision fp32"
            )
        self.accelerator.clip_grad_norm_(self._parameters.values(), 1.0)
        for optimizer in self._optimizers:
            set_rate(optimizer, self.settings.optimisation.rate(step))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        update_average(self._average, self._parameters, self.settings.optimisation.ema_decay, step)
        return sums[0], sums[1]

    def _learn(self, model: Any, half: Batch, step: int, redirecting: bool) -> torch.Tensor:
        """Add a half's gradients; returns its loss, a scalar.

        One half after the other: memory holds the activations of one only.
        """
        settings, half = self.settings, self._own_part(half)
        attacked = redirecting and settings.redirect.mixture.adversarial > 0
        attacked = attacked and step % ATTACK_EVERY == 0
        output, condition = self._predict(model, half, attacked)
        if attacked:
            self._strengthen_adversaries(output, condition, half)
        loss = self._item_losses(output, half, redirecting).mean()
        weight = settings.redirect.weight if redirecting else settings.preserve.weight
        self.accelerator.backward(weight / settings.optimisation.gradient_accumulation * loss)
        return loss.detach()

    def _own_part(self, batch: Batch) -> Batch:
        part = batch.part(self.accelerator.process_index, self.accelerator.num_processes)
        return part.to(self.accelerator.device)

    def _predict(
        self, model: Any, batch: Batch, attacked: bool = False
    ) -> tuple[torch.Tensor, TextCondition]:
        """The denoiser's output, and the texts' condition, with gradients if it is attacked."""
        z_t, timesteps, texts = batch.by_text()
        condition = self._source.conditions.table[texts.cpu()].to(self.accelerator.device)
        for embedding in condition.embeddings.values():
            embedding.requires_grad_(attacked)
        return predict(model, z_t, timesteps, condition), condition

    def _strengthen_adversaries(
        self, output: torch.Tensor, condition: TextCondition, unsafe: Batch
    ) -> None:
        """Move the adversaries to where the model sees more of the unsafe pictures."""
        z_t, timesteps, texts = unsafe.by_text()
        a, s = signal_and_noise(self.pipeline.scheduler, timesteps)
        clean = unsafe.clean.repeat_interleave(unsafe.rows.shape[1], 0)
        kind, gamma = self._source.kind, self.settings.loss.gamma
        distance = clean_latent_loss(output, z_t, clean, a, s, kind, gamma)
        names, embeddings = zip(*condition.embeddings.items(), strict=True)
        gradients = torch.autograd.grad(distance.sum(), embeddings, retain_graph=True)
        conditions = self._source.conditions
        pull = conditions.pull(texts.cpu(), dict(zip(names, gradients, strict=True)))
        conditions.move_adversaries(
            {name: self.accelerator.reduce(p.to(output.device)).cpu() for name, p in pull.items()}
        )

    def _item_losses(self, output: torch.Tensor, batch: Batch, redirecting: bool) -> torch.Tensor:
        """The loss of each picture (B,) of a half."""
        settings, kind = self.settings, self._source.kind
        z_t, timesteps, _ = batch.by_text()
        a, s = signal_and_noise(self.pipeline.scheduler, timesteps)
        if settings.loss.objective == "paper":
            return self._paper_losses(output, batch, redirecting, a, s)
        target = batch.target.flatten(0, 1)
        gamma = settings.loss.single_gamma or settings.loss.gamma
        single = clean_latent_loss(output, z_t, target, a, s, kind, gamma)
        single = single.view(batch.rows.shape).mean(dim=1)
        if settings.loss.guidance_scale == 1:
            return single
        seen = clean_latent(output, z_t, a, s, kind).view_as(batch.target)
        weight = bounded_weight(a, s, settings.loss.gamma)[:: batch.rows.shape[1]]
        joint = guided_latent_loss(seen, batch.target, weight, settings.loss.guidance_scale)
        return (single + settings.loss.guided_weight * joint) / (1 + settings.loss.guided_weight)

    def _paper_losses(
        self,
        output: torch.Tensor,
        batch: Batch,
        redirecting: bool,
        a: torch.Tensor,
        s: torch.Tensor,
    ) -> torch.Tensor:
        kind, clean_target = self._source.kind, batch.target[:, 0]
        if redirecting:
            target = paper_target(batch.clean, clean_target, batch.noise, a, s, kind)
        else:
            target = output_for(clean_target, batch.z_t, a, s, kind)
        return output_loss(output, target)

    def _digest_weights(self) -> dict[str, bytes]:
        return {name: tensor_digest(p) for name, p in self.denoiser.named_parameters()}

    def _verify(self, differences: dict[str, torch.Tensor]) -> None:
        """All weights of the scope must have changed, and no other."""
        now = self._digest_weights()
        changed = {name for name, digest in self._digests.items() if now[name] != digest}
        strayed = sorted(changed - self._parameters.keys())
        if strayed:
            raise SafegenError(f"the edit changed {len(strayed)} weights it must not: {strayed[0]}")
        still = [name for name in self.names if not bool(differences[name].any())]
        if still:
            raise SafegenError(
                f"the edit left {len(still)} of its weights as they were ({still[0]}); "
                "train for more steps or at a higher learning rate"
            )

    def discard(self) -> None:
        """Put the original weights back; the edit's progress is lost."""
        self._trained.discard()
        self._frozen.put_back()
        self._idle.put_back()

    def _record(self, step: int, losses: tuple[float, float], pace: float) -> EditRecord:
        settings = self.settings
        record = EditRecord(
            step=step + 1,
            steps=settings.optimisation.steps,
            loss=settings.redirect.weight * losses[0] + settings.preserve.weight * losses[1],
            redirect=losses[0],
            preserve=losses[1],
            learning_rate=settings.optimisation.rate(step),
            seconds=time.monotonic() - self._began,
            seconds_left=pace * (settings.optimisation.steps - step - 1),
        )
        if self.run_folder and self.accelerator.is_main_process:
            values = {n: getattr(record, n) for n in ("loss", "redirect", "preserve")}
            self.accelerator.log(values, step=record.step)
            with (self.run_folder / RECORDS).open("a") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        return record

    def _start_log(self, start: int) -> None:
        if self.run_folder is None:
            return
        self.accelerator.init_trackers("tensorboard")
        records = self.run_folder / RECORDS
        if self.accelerator.is_main_process and records.exists():
            kept = records.read_text().splitlines()[:start]
            records.write_text("".join(f"{line}\n" for line in kept))

    @cached_property
    def _identity(self) -> str:
        """Digest of all that the result depends on; a checkpoint of another run is refused."""
        parts = [self.base_fingerprint, self.triplets.digest(), asdict(self.settings)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _checkpoint(self, done: int) -> None:
        every = self.settings.computation.checkpoint_every
        if self.run_folder is None or (done % every and done != self.settings.optimisation.steps):
            return
        if self.accelerator.is_main_process:
            state = {
                "identity": self._identity,
                "step": done,
                "seconds": time.monotonic() - self._began,
                "weights": {n: p.detach() for n, p in self._parameters.items()},
                "average": self._average,
                "adversaries": self._source.conditions.adversaries,
                "rehearsal": self._rehearsal.movement,
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            }
            save_state(self.run_folder / "checkpoint.safetensors", state)

    @torch.no_grad()
    def _resume(self, optimizers: list[torch.optim.Optimizer]) -> int:
        if self.run_folder is None:
            return 0
        self.run_folder.mkdir(parents=True, exist_ok=True)
        path = self.run_folder / "checkpoint.safetensors"
        if not path.exists():
            return 0
        state = load_state(path)
        if state["identity"] != self._identity:
            raise SafegenError(
                f"{path}: belongs to an edit with another model, triplets or settings; "
                "delete the folder or name another run folder"
            )
        for name, parameter in self._parameters.items():
            parameter.copy_(state["weights"][name])
        for name, value in self._source.conditions.adversaries.items():
            value.copy_(state["adversaries"][name])
        device = self.accelerator.device
        self._average = {n: value.to(device) for n, value in state["average"].items()}
        self._rehearsal.movement = {n: value.to(device) for n, value in state["rehearsal"].items()}
        for optimizer, moments in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        self._began -= state["seconds"]
        return int(state["step"])
