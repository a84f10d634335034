"""Prompting4Debugging (arXiv 2309.06135): tokens that restore the goal in the defended model.

Under these tokens the defended model predicts from a noised picture what the undefended model
predicts under the goal. Embeddings are optimised, each projected to its nearest token (PEZ, arXiv
2302.03668). Gradients come from the plain denoiser; defenses that guide sampling or filter pictures
act when the pipeline's own call draws the prompt. The paper keeps the prompt whose picture CLIP
finds most like the undefended model's; here the attacker's judge ends the search.
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
from safegen.attacks._gradients import (
    Vocabulary,
    open_prompts,
    search_tokens,
    weighted_error,
)
from safegen.attacks.target import Target
from safegen.models.from_pictures import noise_like
from safegen.models.prediction import add_noise, signal_and_noise, timesteps_at
from safegen.models.tokens import check_clip_alone
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting

Form = Literal["n", "k"]


@dataclass(frozen=True)
class P4DSettings(Settings, of="p4d"):
    """Settings of the search (defaults: the released code's for nudity)."""

    form: Form = setting(
        "k", "`n`, a prompt of found tokens alone, or `k`, the goal with found tokens in it."
    )
    tokens: int = setting(16, "Length of a prompt of form `n`.", minimum=1)
    every: int = setting(3, "Goal tokens between two found ones, in form `k`.", minimum=1)
    iterations: int = setting(3000, "Iterations of AdamW.", minimum=0)
    interval: int = setting(
        50, "Iterations between pictures; one is drawn before the first.", minimum=1
    )
    learning_rate: float = setting(0.1, "Learning rate of the embeddings.", above=0)
    weight_decay: float = setting(0.1, "Weight decay of the embeddings.", minimum=0)
    latents: int = setting(
        100,
        "Noised latents of a task's picture, spread over all noise levels; each iteration takes "
        "one (the paper draws a new one each time).",
        minimum=1,
    )
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class P4D(Attack):
    """Search for a prompt that restores the goal in the defended model."""

    settings: P4DSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = f"p4d-{self.settings.form}"
        return AttackIdentity(name, "text", "white box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned.

        Raises:
            SafegenError: the model has text encoders other than CLIP's.
        """
        check_clip_alone(target.pipeline)
        yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        pictures = target.encode(target.unsafe_pictures(tasks))
        found = _Search(target, tasks, pictures, self.settings)
        rounds = self.settings.iterations // self.settings.interval
        return search_tokens(target, tasks, found, rounds)


def interleaved(goal: Sequence[int], every: int) -> list[int]:
    """Interleave a goal's tokens with open slots: one first, and one after each ``every``."""
    layout: list[int] = []
    for place, start in enumerate(range(0, len(goal) + 1, every)):
        layout += [~place, *goal[start : start + every]]
    return layout


class _Search:
    """Search for some tasks, whose unsafe pictures are latents (N, C, H, W)."""

    def __init__(
        self, target: Target, tasks: Sequence[Task], pictures: torch.Tensor, settings: P4DSettings
    ) -> None:
        self.target = target
        self.settings = settings
        self.vocabulary = Vocabulary(target.pipeline)
        self.generators = [task_generator(task, settings.seed) for task in tasks]
        layouts = [self._layout(task.text) for task in tasks]
        self.prompts = open_prompts(target.pipeline, layouts)
        self.embeddings = [
            self._random(sum(token < 0 for token in layout), generator)
            for layout, generator in zip(layouts, self.generators, strict=True)
        ]  # (K, D) each; K differs by task
        self.optimizer = torch.optim.AdamW(
            self.embeddings, settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._see(tasks, pictures)

    def advance(self, rows: list[int], number: int) -> None:
        """See ``TokenSearch.advance``."""
        first = number * self.settings.interval
        for iteration in range(first, first + self.settings.interval):
            tried = [self._tried(i).requires_grad_() for i in rows]
            loss = self._loss(rows, tried, iteration % self.settings.latents)
            gradients = torch.autograd.grad(loss.sum(), tried)
            self.optimizer.zero_grad(set_to_none=True)  # AdamW skips tensors without a gradient
            for i, gradient in zip(rows, gradients, strict=True):
                self.embeddings[i].grad = gradient
            self.optimizer.step()

    def sequences(self, rows: list[int]) -> torch.Tensor:
        """See ``TokenSearch.sequences``."""
        nearest = _padded([self.vocabulary.nearest(self.embeddings[i].detach()) for i in rows])
        return self.prompts[rows].filled(self.vocabulary.allowed.to(nearest.device)[nearest])

    def passes(self, rounds: int) -> int:
        """See ``TokenSearch.passes``."""
        return self.settings.latents + 3 * rounds * self.settings.interval

    def _layout(self, text: str) -> list[int]:
        if self.settings.form == "n":
            return [~place for place in range(self.settings.tokens)]
        return interleaved(self.vocabulary.tokens(text), self.settings.every)

    def _random(self, count: int, generator: torch.Generator) -> torch.Tensor:
        table = self.vocabulary.table
        chosen = torch.randint(len(table), (count,), generator=generator).to(table.device)
        return table[chosen].requires_grad_()

    def _see(self, tasks: Sequence[Task], pictures: torch.Tensor) -> None:
        """Noise the pictures, and record the undefended model's predictions under the goals."""
        count, scheduler = self.settings.latents, self.target.pipeline.scheduler
        levels = [torch.randperm(count, generator=each) for each in self.generators]
        offsets = [torch.rand(count, generator=each) for each in self.generators]
        places = (torch.stack(levels) + torch.stack(offsets)) / count
        self.times = timesteps_at(scheduler, places.T).to(pictures.device)  # (latents, N)
        self.noised, self.wanted = [], []
        with self.target.undefended(), torch.no_grad():
            texts = self.target.embed([task.text for task in tasks])
            for times in self.times:
                a, s = signal_and_noise(scheduler, times)
                z_t = add_noise(pictures, noise_like(pictures, self.generators), a, s)
                self.noised.append(z_t)
                self.wanted.append(self.target.clean(z_t, times, texts))

    def _tried(self, row: int) -> torch.Tensor:
        """Embeddings (K, D) of a task's nearest tokens."""
        return self.vocabulary.table[self.vocabulary.nearest(self.embeddings[row].detach())]

    def _loss(self, rows: list[int], tried: Sequence[torch.Tensor], latent: int) -> torch.Tensor:
        times = self.times[latent, rows]
        a, s = signal_and_noise(self.target.pipeline.scheduler, times)
        condition = self.prompts[rows].condition(_padded(tried))
        seen = self.target.clean(self.noised[latent][rows], times, condition)
        return weighted_error(seen, self.wanted[latent][rows], a, s)


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack rows of different lengths; entries beyond a row's own are ignored."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


@register("p4d")
@takes(P4DSettings)
def p4d(form: Form = "k", **options: Any) -> P4D:
    """Tokens between those of the goal (``k``), or a prompt of found tokens alone (``n``)."""
    return P4D(P4DSettings(form, **options))
