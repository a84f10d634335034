"""Distillation to few steps (latent consistency models, arXiv 2310.04378).

Few-step versions of a model are made by training it to jump along its own sampling path. This
measures whether an edit survives such a training on benign pictures, and the few large steps that
are drawn with then. The teacher is the defended model; the student starts from it.

The target network is the student itself without a gradient, not a moving average. The guidance
scale is fixed, as in LCM-LoRA (arXiv 2311.05556), and the student is drawn without guidance, so
defenses that act through guidance are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._fine_tuning import (
    FolderPictures,
    Lesson,
    benign_pictures,
    check_trainable,
    descend,
    lesson_of,
    recorded,
)
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.conditioning import TextCondition
from safegen.models.moving import all_trained, denoiser_put_back, exchanged
from safegen.models.prediction import (
    add_noise,
    flow_shift,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)
from safegen.models.sampling import ImageRequest, Sample, draw_batch
from safegen.registry import takes
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting

SCALING, SIGMA = 10.0, 0.5
"""Constants of the boundary condition, as in the released code and diffusers."""
HUBER = 1e-3
"""c of the pseudo-Huber loss, as in the released code."""


@dataclass(frozen=True)
class DistilSettings(Settings, of="distil"):
    """Settings of the distillation (defaults: diffusers' example, in 1000 steps)."""

    draws: int = setting(4, "Denoising steps of the distilled model.", minimum=1, maximum=50)
    steps: int = setting(1000, "Steps of AdamW.", minimum=0)
    learning_rate: float = setting(1e-6, "Constant learning rate.", above=0)
    batch: int = setting(4, "Pictures per step.", minimum=1)
    path: int = setting(50, "Steps of the path along which the student jumps.", minimum=2)
    guidance: float = setting(7.5, "Guidance scale of the teacher.", minimum=1)
    benign: int = setting(
        100, "Benign pictures from the model's profile; a folder is used whole.", minimum=1
    )
    seed: int = setting(
        0, "Seed of the pictures and of every random draw.", minimum=0, maximum=MAX_SEED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws > self.path:
            raise SafegenError(f"distil: draws must be at most the path's {self.path} steps")


def boundary(times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute (c_skip, c_out), each (B, 1, 1, 1), at timesteps (B,): f = c_skip z + c_out x0."""
    t = SCALING * times.float().view(-1, 1, 1, 1)
    return SIGMA**2 / (t**2 + SIGMA**2), t / (t**2 + SIGMA**2).sqrt()


def path_of(scheduler: Any, steps: int) -> torch.Tensor:
    """List the timesteps of the path, from least noise to most: k - 1, 2 k - 1, …

    Those of flow matching are evenly spaced before the sampler's shift.
    """
    count = int(scheduler.config.num_train_timesteps)
    if steps > count:
        raise SafegenError(f"distil: path must be at most the model's {count} timesteps")
    if prediction_of(scheduler) == "flow":
        return timesteps_at(scheduler, torch.arange(1, steps + 1) / steps)
    return torch.arange(1, steps + 1) * (count // steps) - 1


@dataclass(frozen=True)
class Student:
    """Consistency training of the target's denoiser.

    Attributes:
        target: the defended model; its denoiser is the student.
        teacher: weights of the teacher by name.
        lesson: clean latents and texts.
        nothing: unconditional input of guidance, one row.
        settings: settings of the distillation.
    """

    target: Target
    teacher: dict[str, torch.Tensor]
    lesson: Lesson
    nothing: TextCondition
    settings: DistilSettings

    def loss(self, denoiser: torch.nn.Module, generator: torch.Generator) -> torch.Tensor:
        """Pseudo-Huber distance of the student's jumps from two neighbours of the teacher's path.

        Equation 5 of the paper, with one DDIM step of the guided teacher between them.
        """
        scheduler, device = self.target.pipeline.scheduler, self.lesson.latents.device
        batch, path = self.settings.batch, path_of(scheduler, self.settings.path)
        rows = torch.randint(len(self.lesson.latents), (batch,), generator=generator)
        places = torch.randint(len(path), (batch,), generator=generator)
        times = path[places].to(device)
        before = torch.where(places > 0, path[(places - 1).clamp(min=0)], 0).to(device)
        z_0, texts = self.lesson.latents[rows], self.lesson.texts[rows]
        noise = torch.randn(z_0.shape, generator=generator).to(device)
        z_t = add_noise(z_0, noise, *signal_and_noise(scheduler, times))
        with torch.no_grad():
            with exchanged(dict(denoiser.named_parameters()), self.teacher):
                z_before = self.step(z_t, times, before, texts)
            wanted = self.jump(z_before, before, texts)
        return huber(self.jump(z_t, times, texts) - wanted)

    def step(
        self, z_t: torch.Tensor, times: torch.Tensor, before: torch.Tensor, texts: TextCondition
    ) -> torch.Tensor:
        """Take one DDIM step of guided sampling, from timesteps (B,) to earlier ones (B,)."""
        scheduler = self.target.pipeline.scheduler
        plain = self.target.clean(z_t, times, self.nothing.expand(len(texts)))
        clean = plain + self.settings.guidance * (self.target.clean(z_t, times, texts) - plain)
        a, s = (each.view(-1, 1, 1, 1) for each in signal_and_noise(scheduler, times))
        return add_noise(clean, (z_t - a * clean) / s, *signal_and_noise(scheduler, before))

    def jump(self, z: torch.Tensor, times: torch.Tensor, texts: TextCondition) -> torch.Tensor:
        """The student's consistency function f(z, t)."""
        skip, out = boundary(times)
        return skip * z + out * self.target.clean(z, times, texts)


def huber(difference: torch.Tensor) -> torch.Tensor:
    """Mean of sqrt(d^2 + c^2) - c."""
    return ((difference.square() + HUBER**2).sqrt() - HUBER).mean()


@dataclass(frozen=True)
class Distil(Attack):
    """Distil the defended model to a few steps, then draw the goals in these."""

    settings: DistilSettings
    folder: FolderPictures | None = None

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        settings = recorded(self.settings, self.folder)
        return AttackIdentity(f"distil-{self.settings.draws}", "weights", "white box", settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the distillation runs here."""
        check_trainable(target, "distil")
        settings = self.settings
        given = (self.folder, settings.benign, settings.seed, "distil")
        lesson = lesson_of(target, *benign_pictures(target, *given), settings.batch)
        with denoiser_put_back(target.pipeline) as denoiser:
            weights = denoiser.named_parameters()
            teacher = {name: weight.detach().clone() for name, weight in weights}
            student = Student(target, teacher, lesson, target.unconditional(), settings)
            with all_trained(denoiser):
                _train(student, denoiser)
            yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        passes = 6 * self.settings.steps * self.settings.batch

        def draw(rows: list[int], _number: int) -> list[Drawn]:
            samples = few_steps(target, [tasks[i] for i in rows], self.settings)
            return [Drawn(sample, passes=passes, shared=passes) for sample in samples]

        return search(target, tasks, draw)


def _train(student: Student, denoiser: torch.nn.Module) -> None:
    settings = student.settings
    generator = torch.Generator().manual_seed(sample_seed("distil", base=settings.seed))
    losses = (student.loss(denoiser, generator) for _ in range(settings.steps))
    for _ in descend(list(denoiser.parameters()), losses, settings.learning_rate, "distil"):
        pass


def few_steps(target: Target, tasks: Sequence[Task], settings: DistilSettings) -> list[Sample]:
    """Draw tasks in the distilled model's few steps, without guidance."""
    pipeline = target.pipeline
    sampling = replace(target.sampling, steps=settings.draws, guidance_scale=1.0)
    before = pipeline.scheduler
    pipeline.scheduler = _few_step_sampler(before, tasks, settings)
    try:
        requests = [ImageRequest(task.text, task.seed) for task in tasks]
        return list(draw_batch(pipeline, requests, sampling))
    finally:
        pipeline.scheduler = before


def _few_step_sampler(own: Any, tasks: Sequence[Task], settings: DistilSettings) -> Any:
    """Make the sampler of latent consistency models on a scheduler's noise levels.

    Pipelines of flow matching hand it no generators, so it has those of the tasks.
    """
    from diffusers import FlowMatchLCMScheduler, LCMScheduler

    if prediction_of(own) != "flow":
        return LCMScheduler.from_config(own.config, original_inference_steps=settings.path)
    sampler = FlowMatchLCMScheduler(own.config.num_train_timesteps, flow_shift(own))
    sigmas = [1 - step / settings.draws for step in range(settings.draws)]
    sampler.set_timesteps = partial(sampler.set_timesteps, sigmas=sigmas)
    generators = [task_generator(task, settings.seed) for task in tasks]
    sampler.step = partial(sampler.step, generator=generators)
    return sampler


@register("distil")
@takes(DistilSettings)
def distil(folder: str = "", **options: Any) -> Distil:
    """Consistency distillation to four steps; ``distil:FOLDER,draws=8`` names benign pictures."""
    pictures = FolderPictures(Path(folder)) if folder else None
    return Distil(DistilSettings(**options), pictures)
