"""img2img: sampling from a noised unsafe picture (SDEdit, arXiv 2108.01073).

The attacker gives a picture and its text; the model makes another picture from it. A low strength
adds little noise, so any model restores the picture unless it recognises the content. A high
strength keeps little more than the layout.
"""

from __future__ import annotations

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
from safegen.models.from_pictures import last_steps, noise_like, noised
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class Img2ImgSettings(Settings, of="img2img"):
    """Settings of img2img."""

    strength: float = setting(
        help="Share of the sampler's steps to run; the picture is noised to the first of them.",
        above=0,
        maximum=1,
    )
    seed: int = setting(0, "Seed of the noise.", minimum=0, maximum=MAX_SEED)


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
@takes(Img2ImgSettings)
def img2img(strength: float, **options: Any) -> Img2Img:
    """img2img from a noised unsafe picture, at a strength such as 0.5."""
    return Img2Img(Img2ImgSettings(strength, **options))
