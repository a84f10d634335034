"""RECALL (arXiv 2507.07139): an optimised image prompt, guided by an unsafe picture.

A mixture of the picture's latent and noise is optimised until the defended model's prediction from
it matches that from the picture, one noise level after another. It is then noised and sampled as in
img2img, with the goal's text, until the attacker's judge finds it unsafe.

The attacker gives a picture and its text, at a strength that keeps little more than a picture's
layout. The first image prompt is the unsafe picture itself, as in the released code, so an attack
that stops there has succeeded by img2img.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._from_pictures import draw_from
from safegen.attacks._gradients import frozen
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.models.from_pictures import last_steps, noise_like, noised
from safegen.models.prediction import add_noise, signal_and_noise, timesteps_at
from safegen.models.sampling import Sample
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting

Goal = Literal["prediction", "picture"]


@dataclass(frozen=True)
class RecallSettings(Settings, of="recall"):
    """Settings of the search (defaults: the released code's)."""

    goal: Goal = setting(
        "prediction",
        "Optimisation target: the model's own `prediction` from the unsafe picture at the same "
        "noise, as in the paper, or the `picture` itself, for models trained to redirect it.",
    )
    rounds: int = setting(
        50, "Noise levels, from lowest to highest; a picture is drawn after each.", minimum=0
    )
    iterations: int = setting(20, "Gradient steps per round.", minimum=1)
    learning_rate: float = setting(1e-3, "Change of each latent value per iteration.", above=0)
    momentum: float = setting(0.9, "Momentum of the normalised gradient.", minimum=0, below=1)
    reference: float = setting(
        0.25,
        "Share of the unsafe latent in the first image prompt; the rest is noise.",
        minimum=0,
        maximum=1,
    )
    injection: float = setting(
        0.05, "Share of the unsafe latent added every `interval` rounds.", minimum=0, maximum=1
    )
    interval: int = setting(5, "Rounds between two such additions.", minimum=1)
    strength: float = setting(0.8, "Strength of img2img; see there.", above=0, maximum=1)
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Recall(Attack):
    """Search for an image prompt that brings the concept out."""

    settings: RecallSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("recall", "image", "white box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        sampling = target.sampling
        scheduler = last_steps(
            target.pipeline, sampling.sampler, sampling.steps, self.settings.strength
        )
        yield partial(self._strike, target, scheduler)

    def _strike(self, target: Target, scheduler: Any, tasks: Sequence[Task]) -> list[Finding]:
        references = target.unsafe_pictures(tasks)
        before = target.scores(references)
        prompts = ImagePrompts(target, scheduler, tasks, target.encode(references), self.settings)
        passes = (4 if self.settings.goal == "prediction" else 3) * self.settings.iterations

        def draw(rows: list[int], number: int) -> list[Drawn]:
            if number:
                with frozen(target.pipeline):
                    prompts.advance(rows, number - 1)
            return [
                Drawn(
                    sample,
                    passes=passes * number,
                    details={"reference": float(before[i]), "rounds": number},
                )
                for i, sample in zip(rows, prompts.draw(rows), strict=True)
            ]

        return search(target, tasks, draw, self.settings.rounds + 1)


class ImagePrompts:
    """Image prompts of some tasks, as latents (N, C, H, W)."""

    def __init__(
        self,
        target: Target,
        scheduler: Any,
        tasks: Sequence[Task],
        references: torch.Tensor,
        settings: RecallSettings,
    ) -> None:
        self.target = target
        self.scheduler = scheduler
        self.tasks = tasks
        self.references = references
        self.settings = settings
        self.generators = [task_generator(task, settings.seed) for task in tasks]
        self.texts = target.embed([task.text for task in tasks])
        self.latents = references.clone()
        self.velocity = torch.zeros_like(references)
        places = (torch.arange(settings.rounds) + 0.5) / max(1, settings.rounds)
        self.times = timesteps_at(target.pipeline.scheduler, places)

    def advance(self, rows: list[int], number: int) -> None:
        """Run a round for some tasks at its noise level; the first starts from a mixture."""
        settings, references = self.settings, self.references[rows]
        if number == 0:
            noise = noise_like(references, [self.generators[i] for i in rows])
            self.latents[rows] = torch.lerp(noise, references, settings.reference)
        for _ in range(settings.iterations):
            gradient = self._gradient(rows, self.times[number])
            size = gradient.abs().flatten(1).mean(dim=1).view(-1, 1, 1, 1)
            kept = settings.momentum * self.velocity[rows]
            self.velocity[rows] = kept + gradient / (size + 1e-8)
            # Descend: the paper and its code have the sign of an ascent.
            self.latents[rows] -= settings.learning_rate * self.velocity[rows].sign()
        if (number + 1) % settings.interval == 0:
            self.latents[rows] += settings.injection * references

    def _gradient(self, rows: list[int], time: torch.Tensor) -> torch.Tensor:
        """Gradient of the mean squared distance between prediction and target.

        Taken in clean latents, which differs by a positive factor from that in the noise.
        """
        times = time.repeat(len(rows)).to(self.references.device)
        a, s = signal_and_noise(self.target.pipeline.scheduler, times)
        noise = noise_like(self.references[rows], [self.generators[i] for i in rows])
        goal = self.references[rows]
        if self.settings.goal == "prediction":
            with torch.no_grad():
                goal = self.target.clean(add_noise(goal, noise, a, s), times, self.texts[rows])
        prompts = self.latents[rows].requires_grad_()
        seen = self.target.clean(add_noise(prompts, noise, a, s), times, self.texts[rows])
        loss = (seen - goal).square().flatten(1).mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(loss, prompts)
        return gradient

    def draw(self, rows: list[int]) -> list[Sample]:
        """Draw pictures of some tasks from their noised image prompts."""
        generators = [self.generators[i] for i in rows]
        noise = noise_like(self.latents[rows], generators)
        latents = noised(self.scheduler, self.latents[rows], noise)
        return draw_from(self.target, [self.tasks[i] for i in rows], latents, self.scheduler)


@register("recall")
@takes(RecallSettings)
def recall(**options: Any) -> Recall:
    """Image prompt optimised towards an unsafe picture."""
    return Recall(RecallSettings(**options))
