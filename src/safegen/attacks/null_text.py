"""Null-text inversion (arXiv 2211.09794) of an unsafe picture in the defended model.

DDIM inversion turns the picture into noise, and an unconditional embedding is optimised per step,
so that guidance towards the goal's text leads back. As in TINA (arXiv 2603.17828), the inversion
uses no text, since an erased model resists the concept's, and can be refined.

The attacker gives a noise and one embedding per step, which replaces the unconditional half of
guidance and any negative prompt. The noise is not random: DDIM inverts any model, and the noise
retains the picture's content. So a success means that the model does not resist, not that it knows
the concept: compare with a model that never saw it (the defense ``filtered``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from safegen.attacks import Finding, Task, register
from safegen.attacks._from_pictures import draw_from
from safegen.attacks._gradients import frozen
from safegen.attacks._inversion import DdimPath, InversionAttack
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target, by_guidance
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import TextCondition
from safegen.models.families import family_of
from safegen.models.sampling import Sample
from safegen.profiles import NO_SETTINGS
from safegen.profiles import Settings as Usual
from safegen.registry import takes
from safegen.settings import Settings, setting


@dataclass(frozen=True)
class NullTextSettings(Settings, of="null-text"):
    """Settings of the inversion (defaults: null-text inversion's released code)."""

    steps: int = setting(50, "DDIM steps, backwards and forwards.", minimum=1)
    refinements: int = setting(
        0,
        "Further passes per inversion step, each from the previous latent: TINA's self-consistency "
        "by iteration (TINA itself takes 25 steps of AdamW).",
        minimum=0,
    )
    iterations: int = setting(
        10, "Most Adam iterations on a step's embedding; 0 leaves it unchanged.", minimum=0
    )
    learning_rate: float = setting(
        1e-2, "Learning rate of the first step, halved linearly over the steps.", above=0
    )
    tolerance: float = setting(
        1e-5,
        "Mean squared error that ends the first step's iterations; it grows by twice as much from "
        "each step to the next.",
        minimum=0,
    )


@dataclass(frozen=True)
class NullText(InversionAttack):
    """Draw each goal from the noise that inverts its unsafe picture."""

    settings: NullTextSettings
    name: str = "null-text"

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        # Refuses, before anything is drawn, where the embeddings could not be drawn with.
        family_of(target.pipeline).text_inputs(target.unconditional())
        if any(task.guidance <= 1 for task in tasks):
            raise SafegenError(
                "null-text optimises the unconditional embedding, which guidance 1 does not use; "
                "draw with a guidance above 1"
            )
        references = target.unsafe_pictures(tasks)
        inversion = Inversion(target, tasks, self.settings)
        pivot = inversion.invert(target.encode(references))
        with frozen(target.pipeline):
            embeddings, iterations = inversion.optimise(pivot)
        passes = self.settings.steps * (3 + self.settings.refinements)

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = inversion.draw(pivot[-1], embeddings)
            before = target.scores(references)
            return [
                Drawn(
                    sample,
                    passes=passes + 3 * spent,
                    details={"reference": float(score), "noise": float(noise.std())},
                )
                for sample, score, spent, noise in zip(
                    samples, before, iterations, pivot[-1], strict=True
                )
            ]

        return search(target, tasks, draw)


class Inversion(DdimPath):
    """Inversion of some tasks' pictures, with an unconditional embedding for each step."""

    def __init__(self, target: Target, tasks: Sequence[Task], settings: NullTextSettings) -> None:
        super().__init__(target, settings.steps)
        self.tasks = tasks
        self.settings = settings
        self.text = target.embed([task.text for task in tasks])
        self.null = target.unconditional().expand(len(tasks))
        hidden = self.text.hidden
        # Tokens of zeros stand for an encoder that the pipeline lacks (SD3's T5), and stay.
        self.free = {"hidden": (hidden != 0).any(dim=2, keepdim=True)}
        scales = [task.guidance for task in tasks]
        self.guidance = torch.tensor(scales, device=hidden.device).view(-1, 1, 1, 1)

    @torch.no_grad()
    def invert(self, clean: torch.Tensor) -> list[torch.Tensor]:
        """Invert clean latents; returns latents (N, C, H, W) from clean to noisiest, without text.

        Each step takes the noise predicted at the new level from the latent before it; a refined
        step, from the new latent itself.
        """
        pivot = [clean]
        for level in reversed(range(len(self.times))):
            z = pivot[-1]
            for _ in range(1 + self.settings.refinements):
                z = self.move(pivot[-1], self.heading(z, level, self.null), level + 1, level)
            pivot.append(z)
        return pivot

    def optimise(self, pivot: Sequence[torch.Tensor]) -> tuple[list[TextCondition], list[int]]:
        """Optimise N unconditional embeddings per step; also returns iterations per task.

        Args:
            pivot: latents from ``invert``.
        """
        z, unconditional = pivot[-1], self.null
        embeddings, spent = [], [0] * len(z)
        for level in range(len(self.times)):
            with torch.no_grad():
                conditional = self.heading(z, level, self.text)
            goal = pivot[-2 - level]
            unconditional = self._fit(z, level, unconditional, conditional, goal, spent)
            embeddings.append(unconditional)
            with torch.no_grad():
                z = self._step(z, level, unconditional, conditional, slice(None))
        return embeddings, spent

    def draw(self, noise: torch.Tensor, embeddings: Sequence[TextCondition]) -> list[Sample]:
        """Draw the defended pipeline's pictures from the noise, with one embedding per step."""

        def alike(rows: list[int]) -> list[Sample]:
            chosen = [each[rows] for each in embeddings]
            tasks = [self.tasks[i] for i in rows]
            with unconditional_steps(self.target.pipeline, chosen):
                return draw_from(self.target, tasks, noise[rows], self.scheduler)

        return by_guidance(self.tasks, alike)

    def _step(
        self,
        z: torch.Tensor,
        level: int,
        unconditional: TextCondition,
        conditional: torch.Tensor,
        rows: list[int] | slice,
    ) -> torch.Tensor:
        """Take a guided step for some rows, with the conditional heading given."""
        u = self.heading(z[rows], level, unconditional)
        guided = u + self.guidance[rows] * (conditional[rows] - u)
        return self.move(z[rows], guided, level, level + 1)

    def _fit(
        self,
        z: torch.Tensor,
        level: int,
        unconditional: TextCondition,
        conditional: torch.Tensor,
        goal: torch.Tensor,
        spent: list[int],
    ) -> TextCondition:
        """Fit embeddings whose step leads to the goal; each task stops by itself."""
        settings, left = self.settings, list(range(len(z)))
        rows = {
            name: [each.clone().requires_grad_() for each in value]
            for name, value in unconditional.embeddings.items()
        }
        rate = settings.learning_rate * (1 - level / (2 * settings.steps))
        optimizer = torch.optim.Adam([each for part in rows.values() for each in part], lr=rate)
        for _ in range(settings.iterations):
            chosen = {name: torch.stack([part[i] for i in left]) for name, part in rows.items()}
            tried = unconditional[left].with_embeddings(chosen)
            after = self._step(z, level, tried, conditional, left)
            losses = (after - goal[left]).square().flatten(1).mean(dim=1)
            gradients = torch.autograd.grad(losses.sum(), list(chosen.values()))
            optimizer.zero_grad(set_to_none=True)  # Adam skips rows without a gradient
            for name, gradient in zip(chosen, gradients, strict=True):
                for i, each in zip(left, gradient, strict=True):
                    rows[name][i].grad = each * self.free[name][i] if name in self.free else each
            for i in left:
                spent[i] += 1
            optimizer.step()
            enough = settings.tolerance * (1 + 2 * level)
            left = [i for i, loss in zip(left, losses.tolist(), strict=True) if loss >= enough]
            if not left:
                break
        found = {name: torch.stack(part).detach() for name, part in rows.items()}
        return unconditional.with_embeddings(found)


@contextmanager
def unconditional_steps(pipeline: Any, embeddings: Sequence[TextCondition]) -> Iterator[None]:
    """Replace the denoiser's unconditional half by these embeddings, one per call.

    Hooks already on the denoiser see the replacement.
    """
    family, steps = family_of(pipeline), iter(embeddings)

    def exchange(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, _with_first_rows(kwargs, family.text_inputs(next(steps)))

    handle = denoiser_of(pipeline).register_forward_pre_hook(
        exchange, with_kwargs=True, prepend=True
    )
    try:
        yield
    finally:
        handle.remove()


def _with_first_rows(given: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """Copy arguments of a call, with other first rows of some tensors in them."""
    changed = dict(given)
    for name, value in rows.items():
        if isinstance(value, Mapping):
            changed[name] = _with_first_rows(given[name], value)
        else:
            changed[name] = torch.cat([value.to(given[name]), given[name][len(value) :]])
    return changed


@register("null-text")
@takes(NullTextSettings)
def null_text(budget: str | None = None, *, usual: Usual = NO_SETTINGS, **options: Any) -> NullText:
    """DDIM inversion of an unsafe picture, with an unconditional embedding for each step.

    The budget is the profile's (default: the released code's); ``null-text:released`` forces the
    released code's.

    Raises:
        SafegenError: the budget is unknown.
    """
    if budget is None:
        return NullText(NullTextSettings(**{**usual, **options}))
    if budget != "released":
        raise SafegenError(f"null-text: unknown budget {budget!r}; known: released")
    return NullText(NullTextSettings(**options), f"null-text-{budget}")
