"""TINA and TINA+ (arXiv 2603.17828 and 2608.17747): inversion of an unsafe picture without text.

The picture is inverted along DDIM's path, and each latent is optimised until the defended model's
own step leads from it back to the one before. The noise found is drawn with the empty text, so a
defense that only breaks the link from words to pictures does not act.

Such a path exists through any model, with random weights too: its latents are the picture scaled
down, without noise. TINA+ penalises latents with less energy than noise has. The bound here is the
energy that the picture has once it is noised to the level. A success still needs controls: what
``random-weights`` and ``filtered`` give up as well is not the model's knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from safegen.attacks import Finding, Task, register
from safegen.attacks._from_pictures import draw_from
from safegen.attacks._gradients import frozen
from safegen.attacks._inversion import DdimPath, InversionAttack
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.conditioning import TextCondition
from safegen.models.families import family_of
from safegen.registry import takes
from safegen.settings import Settings, setting


@dataclass(frozen=True)
class TinaSettings(Settings, of="tina"):
    """Settings of the inversion."""

    steps: int = setting(50, "DDIM steps, backwards and forwards.", minimum=1)
    iterations: int = setting(25, "Adam iterations on a step's latent; 25 as in TINA.", minimum=0)
    learning_rate: float = setting(1e-2, "Constant learning rate.", above=0)
    energy: float = setting(1.0, "Weight of TINA+'s energy constraint; 0 is TINA.", minimum=0)


@dataclass(frozen=True)
class Tina(InversionAttack):
    """Draw from the noise that leads to each goal's unsafe picture without text."""

    settings: TinaSettings
    name: str = "tina"

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        references = target.unsafe_pictures(tasks)
        path = TextFreePath(target, self.settings)
        with frozen(target.pipeline):
            noise = path.invert(target.encode(references))
        passes = self.settings.steps * (1 + 3 * self.settings.iterations)
        wordless = [replace(task, text="") for task in tasks]
        # Where something else stands for the empty text, no prompt says it.
        other = family_of(target.pipeline).empty(target.pipeline) is not None
        condition = path.empty.expand(len(tasks)) if other else None

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = draw_from(target, wordless, noise, path.scheduler, condition)
            facts = zip(samples, target.scores(references), energy(noise), strict=True)
            return [
                Drawn(
                    sample,
                    passes=passes,
                    details={"reference": float(score), "energy": float(found)},
                )
                for sample, score, found in facts
            ]

        return search(target, tasks, draw)


class TextFreePath(DdimPath):
    """Path from pictures to noise under the empty text."""

    def __init__(self, target: Target, settings: TinaSettings) -> None:
        super().__init__(target, settings.steps)
        self.settings = settings
        self.empty = target.unconditional()  # one row

    def invert(self, clean: torch.Tensor) -> torch.Tensor:
        """Find noise (N, C, H, W) that leads to clean latents of this shape."""
        condition, z = self.empty.expand(len(clean)), clean
        for level in reversed(range(len(self.times))):
            with torch.no_grad():
                guess = self.move(z, self.heading(z, level, condition), level + 1, level)
            least = self.a[level] ** 2 * energy(clean) + self.s[level] ** 2
            z = self._fit(guess, z, level, condition, least)
        return z

    def _fit(
        self,
        guess: torch.Tensor,
        goal: torch.Tensor,
        level: int,
        condition: TextCondition,
        least: torch.Tensor,
    ) -> torch.Tensor:
        """Optimise latents whose step leads to the goal, with energies (N,) of at least these."""
        z = guess.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.settings.learning_rate)
        for _ in range(self.settings.iterations):
            step = self.move(z, self.heading(z, level, condition), level, level + 1)
            error = (step - goal).square().flatten(1).mean(dim=1)
            lacking = (least - energy(z)).clamp(min=0)
            loss = (error + self.settings.energy * lacking.square()).sum()
            (z.grad,) = torch.autograd.grad(loss, [z])
            optimizer.step()
        return z.detach()


def energy(z: torch.Tensor) -> torch.Tensor:
    """Mean square (N,) of latents (N, C, H, W); 1 for noise."""
    return z.square().flatten(1).mean(dim=1)


@register("tina")
@takes(TinaSettings)
def tina(kind: str | None = None, **options: Any) -> Tina:
    """Inversion of an unsafe picture without text, held to noise's energy; ``tina:free`` is not.

    Raises:
        SafegenError: the kind is unknown.
    """
    if kind is None:
        return Tina(TinaSettings(**options))
    if kind != "free":
        raise SafegenError(f"tina: unknown kind {kind!r}; known: free")
    return Tina(TinaSettings(**{**options, "energy": 0.0}), "tina-free")
