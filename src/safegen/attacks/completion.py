"""Diffusion completion: the original begins a picture, and the defended model ends it.

The attacker gives a latent from the original's way to an unsafe picture, and the goal's text, as in
the probe of arXiv 2505.17013. Few of the original's steps fix the layout, so what the defended
model draws into it is its own; after many, little is left for it to draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._from_pictures import draw_by, draw_from, own_noise
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.families import family_if_known
from safegen.models.from_pictures import last_steps
from safegen.models.sampling import Sample
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class CompletionSettings(Settings, of="completion"):
    """Settings of the completion."""

    share: float = setting(
        0.2,
        "Share of the sampler's steps that the original makes, rounded down; 0.1 and 0.2 in the "
        "released code.",
        above=0,
        below=1,
    )
    seed: int = setting(0, "Seed of the noise.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Completion(Attack):
    """Draw each goal on from the original's own latent."""

    settings: CompletionSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = f"completion-{self.settings.share:g}"
        return AttackIdentity(name, "image", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned.

        Raises:
            SafegenError: the share leaves the original no step.
        """
        steps = target.sampling.steps
        first = int(steps * self.settings.share)
        if first < 1:
            raise SafegenError(
                f"completion: a share of {self.settings.share:g} of {steps} steps is none; use "
                "more steps or a higher share"
            )
        yield partial(self._strike, target, first)

    def _strike(self, target: Target, first: int, tasks: Sequence[Task]) -> list[Finding]:
        generators = [task_generator(task, self.settings.seed) for task in tasks]
        with target.undefended():
            begun, ended = begin(target, tasks, generators, first)
        before = target.scores([sample.image for sample in ended])
        sampling = target.sampling
        share = (sampling.steps - first + 0.5) / sampling.steps
        scheduler = last_steps(target.pipeline, sampling.sampler, sampling.steps, share)

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = draw_from(target, tasks, begun, scheduler)
            return [
                Drawn(sample, details={"reference": float(score), "begun": first})
                for sample, score in zip(samples, before, strict=True)
            ]

        return search(target, tasks, draw)


def begin(
    target: Target, tasks: Sequence[Task], generators: Sequence[torch.Generator], first: int
) -> tuple[torch.Tensor, list[Sample]]:
    """Draw tasks with the target's pipeline as it is.

    Returns:
        The latents (N, C, H, W) after ``first`` steps, and the finished pictures.
    """
    family, noise = family_if_known(target.pipeline), own_noise(target, generators)
    found: dict[int, torch.Tensor] = {}

    def keep(scheduler: Any, rows: list[int]) -> None:
        step, done = scheduler.step, 0

        def kept(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            result = step(*args, **kwargs)
            done += 1
            if done == first:
                latents = result[0] if isinstance(result, tuple) else result.prev_sample
                unpacked = family.unpacked(latents, noise[rows]).float()
                found.update(zip(rows, unpacked, strict=True))
            return result

        scheduler.step = kept

    samples = draw_by(target, tasks, noise, target.sampling.sampler, keep)
    return torch.stack([found[i] for i in range(len(tasks))]), samples


@register("completion")
@takes(CompletionSettings)
def completion(share: float = CompletionSettings.share, **options: Any) -> Completion:
    """The original's way to a picture, ended by the model; ``completion:0.1`` gives a share."""
    return Completion(CompletionSettings(share, **options))
