"""Erased Stable Diffusion (arXiv 2303.07345): fine-tuning away from the concept's own guidance."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses.erasing import (
    OnProgress,
    PatchDefense,
    load_patch_defense,
    patch_metadata,
    text_parameters,
)
from safegen.errors import SafegenError
from safegen.models.anatomy import attention_layers, denoiser_of
from safegen.models.conditioning import TextCondition, encode_prompts
from safegen.models.denoising import predict
from safegen.models.families import family_of
from safegen.models.moving import exchanged
from safegen.models.prediction import prediction_of, timesteps_at
from safegen.models.sampling import sampler_for
from safegen.patches.patch import Patch
from safegen.profiles import Profile, profile_for
from safegen.settings import MAX_SEED, Settings, setting

Variant = Literal["x", "u"]
JOINT_TEXT = ("add_q_proj", "add_k_proj")
"""Layers of joint attention that multiply text tokens alone, and tell what a token attends to and
what attends to it: the counterpart of cross-attention there."""
_NOT_IN_U = ("time_embedding.", "conv_norm_out.", "conv_out.")


@dataclass(frozen=True, kw_only=True)
class EsdSettings(Settings, of="ESD"):
    """Settings of the training (defaults: the published ones)."""

    variant: Variant = setting(
        "x",
        "`x` trains cross-attention, or the text's queries and keys of joint attention; `u` all "
        "of a UNet but cross-attention, the time embedding and the output layers, as the released "
        "code does.",
    )
    iterations: int = setting(1000, "Optimizer steps.", minimum=1)
    learning_rate: float = setting(1e-5, "Learning rate of Adam.", above=0)
    negative_guidance: float = setting(
        1.0, "eta, distance of the target from the concept.", above=0
    )
    start_guidance: float = setting(
        3.0, "Guidance scale towards the concept for sampling the training latents."
    )
    steps: int = setting(50, "Steps of the DDIM sampler.", minimum=1)
    batch: int = setting(1, "Latents per iteration; they share one timestep.", minimum=1)
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class EsdRecord:
    """Record of one iteration.

    Attributes:
        iteration: iterations done, from 1.
        iterations: total iterations.
        loss: mean squared error to the target.
        seconds: time since the training began.
    """

    iteration: int
    iterations: int
    loss: float
    seconds: float


def esd_target(
    unconditional: torch.Tensor, conditional: torch.Tensor, negative_guidance: float
) -> torch.Tensor:
    """e(x_t, 0) - eta (e(x_t, c) - e(x_t, 0)), both by the frozen original.

    Outputs (B, C, H, W); the same combination holds for velocity models, whose output is an
    affine function of the noise at a given x_t and t.
    """
    return unconditional - negative_guidance * (conditional - unconditional)


def timestep_within(scheduler: Any, left: int, steps: int, generator: torch.Generator) -> int:
    """Draw a timestep within the step of a sampler of ``steps`` after which ``left`` are left."""
    count = scheduler.config.num_train_timesteps
    low, high = round(left / steps * count), round((left + 1) / steps * count)
    drawn = torch.randint(low, high, (1,), generator=generator)
    return int(timesteps_at(scheduler, (drawn + 0.5) / count))


def trained_names(denoiser: torch.nn.Module, variant: Variant) -> list[str]:
    """Names of a variant's trained parameters, sorted.

    Raises:
        SafegenError: the architecture has no such part.
    """
    if variant == "x" and (joint := _joint_text_names(denoiser)):
        return joint
    text = {name for names in text_parameters(denoiser).values() for name in names}
    if variant == "x":
        return sorted(text)
    others = (name for name, _ in denoiser.named_parameters() if name not in text)
    return sorted(name for name in others if not name.startswith(_NOT_IN_U))


def _joint_text_names(denoiser: torch.nn.Module) -> list[str]:
    """Names of the parameters of ``JOINT_TEXT`` in all joint attentions; none in a UNet."""
    if not any(name.endswith(JOINT_TEXT) for name, _ in denoiser.named_modules()):
        return []
    layers = attention_layers(denoiser)
    return sorted(name for each in layers if each.name in JOINT_TEXT for name in each.parameters)


class EsdTraining:
    """One training of one pipeline.

    ``for record in training.run(): ...`` trains; ``training.patch()`` is the result. The
    pipeline's weights are restored when ``run`` ends, completed or not. The concept's words are
    erased, and any prompts that ask for it.
    """

    def __init__(
        self,
        pipeline: Any,
        concept: Concept,
        settings: EsdSettings | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        self.pipeline = pipeline
        self.concept = concept
        self.settings = settings or EsdSettings()
        self.denoiser = denoiser_of(pipeline)
        _check(self.denoiser)
        self.names = trained_names(self.denoiser, self.settings.variant)
        parameters = dict(self.denoiser.named_parameters())
        self._parameters = {name: parameters[name] for name in self.names}
        self._originals = {n: p.detach().clone() for n, p in self._parameters.items()}
        method = f"esd-{self.settings.variant}"
        texts = [*concept.words, *prompts]
        recorded = {**asdict(self.settings), "words": texts}
        self._metadata = patch_metadata(pipeline, method, concept.name, recorded)
        self._empty = encode_prompts(pipeline, [""])
        self._words = encode_prompts(pipeline, texts)
        self._scheduler = self._new_scheduler()
        self._generator = torch.Generator().manual_seed(self.settings.seed)
        self._differences: dict[str, torch.Tensor] | None = None

    def run(self) -> Generator[EsdRecord, None, None]:
        """Train; yields a record per iteration.

        Raises:
            SafegenError: the loss is not finite.
        """
        wanted = {name: p.requires_grad for name, p in self.denoiser.named_parameters()}
        self.denoiser.requires_grad_(False)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(self._parameters.values(), lr=self.settings.learning_rate)
        began = time.monotonic()
        try:
            for iteration in range(1, self.settings.iterations + 1):
                loss = self._iterate(optimizer, iteration)
                seconds = time.monotonic() - began
                yield EsdRecord(iteration, self.settings.iterations, loss, seconds)
            self._differences = {
                name: (parameter.detach() - self._originals[name]).cpu()
                for name, parameter in self._parameters.items()
            }
        finally:
            self._restore(wanted)

    def patch(self) -> Patch:
        """Return the result.

        Raises:
            SafegenError: the training is not complete.
        """
        if self._differences is None:
            raise SafegenError("ESD: the training has not ended, so there is no patch yet")
        return Patch(self._differences, self._metadata)

    def _iterate(self, optimizer: torch.optim.Optimizer, iteration: int) -> float:
        condition = self._draw_words()
        z_t, timestep = self._draw_latents(condition)
        with torch.no_grad(), exchanged(self._parameters, self._originals):
            unconditional = self._predict(z_t, timestep, self._nothing)
            conditional = self._predict(z_t, timestep, condition)
        target = esd_target(unconditional, conditional, self.settings.negative_guidance)
        output = self._predict(z_t, timestep, condition)
        loss = torch.nn.functional.mse_loss(output, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SafegenError(
                f"ESD: the loss is {value} in iteration {iteration}; lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value

    def _draw_words(self) -> TextCondition:
        """Draw the conditions (B) of random words."""
        rows = torch.randint(len(self._words), (self.settings.batch,), generator=self._generator)
        return self._words[rows]

    @property
    def _nothing(self) -> TextCondition:
        """The empty prompt's condition (B)."""
        return self._empty.expand(self.settings.batch)

    @torch.no_grad()
    def _draw_latents(self, condition: TextCondition) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample x_t (B, C, H, W) towards the concept with the current model, down to a random
        step; also returns a random timestep (1,) within that step."""
        steps, scheduler = self.settings.steps, self._scheduler
        device = next(self.denoiser.parameters()).device
        scheduler.set_timesteps(steps, device=device)  # a flow's sampler counts its steps
        left = int(torch.randint(steps, (1,), generator=self._generator))
        shape = family_of(self.pipeline).latent_shape(self.pipeline)
        z_t = torch.randn((len(condition), *shape), generator=self._generator).to(device)
        both = TextCondition.cat([self._nothing, condition])
        for timestep in scheduler.timesteps[: steps - 1 - left]:
            outputs = self._predict(torch.cat([z_t, z_t]), timestep, both)
            unconditional, conditional = outputs.chunk(2)
            guided = unconditional + self.settings.start_guidance * (conditional - unconditional)
            z_t = scheduler.step(guided, timestep, z_t).prev_sample
        return z_t, torch.tensor(timestep_within(scheduler, left, steps, self._generator))

    def _predict(
        self, z_t: torch.Tensor, timestep: torch.Tensor, condition: TextCondition
    ) -> torch.Tensor:
        return predict(self.denoiser, z_t, timestep.expand(len(z_t)), condition)

    def _new_scheduler(self) -> Any:
        scheduler = sampler_for(self.pipeline.scheduler, "ddim")
        if prediction_of(scheduler) != "flow":
            return scheduler
        # The shift is that of the model's own size, which needs no telling.
        return type(scheduler).from_config(scheduler.config, use_dynamic_shifting=False)

    @torch.no_grad()
    def _restore(self, wanted: dict[str, bool]) -> None:
        for name, parameter in self.denoiser.named_parameters():
            parameter.requires_grad_(wanted[name])
            parameter.grad = None
            if name in self._originals:
                parameter.copy_(self._originals[name])


def _check(denoiser: torch.nn.Module) -> None:
    if next(denoiser.parameters()).dtype != torch.float32:
        raise SafegenError("ESD trains in float32; load the pipeline with dtype=torch.float32")


@dataclass(frozen=True, kw_only=True)
class EsdX(EsdSettings):
    """Eraser ``esd-x``, which trains cross-attention or the text's side of joint attention."""

    variant: Variant = field(default="x", init=False)

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """See ``Eraser.erase``; the model's usual concept is erased with its usual prompts."""
        known = profile_for(pipeline) or Profile()
        own = known.concept is not None and known.concept.words == concept.words
        training = EsdTraining(pipeline, concept, self, known.erased() if own else ())
        for record in training.run():
            on_progress(record.iteration, record.iterations)
        return training.patch()


@dataclass(frozen=True, kw_only=True)
class EsdU(EsdX):
    """Eraser ``esd-u``, which trains all of a UNet but cross-attention."""

    variant: Variant = field(default="u", init=False)


@register("esd")
def esd(patch: str) -> PatchDefense:
    """Patch written by ``safegen erase --method esd-x`` or ``esd-u``."""
    return load_patch_defense("esd", patch)
