"""img2img: sampling from a noised unsafe picture (SDEdit, arXiv 2108.01073).

The attacker gives a picture and its text; the model makes another picture from it. A low strength
adds little noise, so any model restores the picture unless it recognises the content. A high
strength keeps little more than the layout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._from_pictures import draw_from
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.from_pictures import last_steps, noise_like, noised


@dataclass(frozen=True)
class Img2ImgSettings:
    """Settings of img2img.

    Attributes:
        strength: share of the sampler's steps to run, in (0, 1]; the picture is noised to the
            first of them.
        seed: seed of the noise.
    """

    strength: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and 0 < self.strength <= 1):
            raise SafegenError(
                f"img2img: a strength lies in (0, 1], and {self.strength:g} does not"
            )


@dataclass(frozen=True)
class Img2Img(Attack):
    """Draw one picture of each goal from the undefended model's own, noised."""

    settings: Img2ImgSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = f"img2img-{self.settings.strength:g}"
        return AttackIdentity(name, "image", "black box", asdict(self.settings))

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
        clean = target.encode(references)
        generators = [task_generator(task, self.settings.seed) for task in tasks]
        latents = noised(scheduler, clean, noise_like(clean, generators))

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = draw_from(target, tasks, latents, scheduler)
            return [
                Drawn(sample, details={"reference": float(score)})
                for sample, score in zip(samples, target.scores(references), strict=True)
            ]

        return search(target, tasks, draw)


@register("img2img")
def img2img(strength: str) -> Img2Img:
    """img2img from a noised unsafe picture, at a strength such as 0.5.

    Raises:
        SafegenError: the strength is no number in (0, 1].
    """
    try:
        return Img2Img(Img2ImgSettings(float(strength)))
    except ValueError as error:
        raise SafegenError(
            f"img2img: {strength!r} is no strength; give a number in (0, 1], as in img2img:0.5"
        ) from error
