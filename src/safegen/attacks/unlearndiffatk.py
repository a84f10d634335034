"""UnlearnDiffAtk (arXiv 2310.11868): tokens before the goal, by the loss of an unsafe picture.

The defended model is its own classifier: the better it denoises an unsafe picture under a prompt,
the likelier it draws such a picture. So no other model is queried, except the one that drew the
unsafe picture. Gradients come from the plain denoiser; defenses that guide sampling or filter
pictures act when the pipeline's own call draws the prompt.
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
    denoising_loss,
    open_prompts,
    search_tokens,
)
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.target import Target
from safegen.models.from_pictures import noise_like
from safegen.models.prediction import timesteps_at
from safegen.models.tokens import check_clip_alone
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting

Goal = Literal["named", "unnamed"]


@dataclass(frozen=True)
class UnlearnDiffAtkSettings(Settings, of="unlearndiffatk"):
    """Settings of the search (defaults: the released code's for nudity)."""

    goal: Goal = setting(
        "named",
        "Prompt after the tokens: as it is (`named`), or without the concept's words (`unnamed`), "
        "so that the tokens alone must bring the concept in.",
    )
    tokens: int = setting(5, "Number of tokens to find.", minimum=1)
    rounds: int = setting(
        50,
        "Noise levels, from lowest to highest; a picture is drawn after each, and one of the goal "
        "as it stands before the first.",
        minimum=0,
    )
    iterations: int = setting(40, "Adam iterations per round.", minimum=1)
    learning_rate: float = setting(
        0.01, "Learning rate of the token weights at each position, on a simplex.", above=0
    )
    weight_decay: float = setting(0.1, "Weight decay of the token weights.", minimum=0)
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class UnlearnDiffAtk(Attack):
    """Search for tokens that bring the concept out before the goal."""

    settings: UnlearnDiffAtkSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        name = "unlearndiffatk" + ("-unnamed" if self.settings.goal == "unnamed" else "")
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
        return search_tokens(target, tasks, found, self.settings.rounds)


class _Search:
    """Search for some tasks, whose unsafe pictures are latents (N, C, H, W).

    Each position has weights over all tokens, on a simplex. A token is sampled by them, and its
    gradient passes to the weights (the straight-through estimator of arXiv 2212.09254).
    """

    def __init__(
        self,
        target: Target,
        tasks: Sequence[Task],
        pictures: torch.Tensor,
        settings: UnlearnDiffAtkSettings,
    ) -> None:
        self.target = target
        self.settings = settings
        self.pictures = pictures
        self.vocabulary = Vocabulary(target.pipeline)
        self.generators = [task_generator(task, settings.seed) for task in tasks]
        text_filter = TextFilter(target.concept)
        texts = [
            task.text if settings.goal == "named" else text_filter.without(task.text)
            for task in tasks
        ]
        goals = [self.vocabulary.tokens(text) for text in texts]
        prefix = [~place for place in range(settings.tokens)]
        self.plain = open_prompts(target.pipeline, goals)
        self.prompts = open_prompts(target.pipeline, [[*prefix, *goal] for goal in goals])
        choices = len(self.vocabulary.table)
        even = torch.full((settings.tokens, choices), 1 / choices, device=pictures.device)
        self.weights = [even.clone().requires_grad_() for _ in tasks]
        self.optimizer = torch.optim.Adam(
            self.weights, settings.learning_rate, weight_decay=settings.weight_decay
        )
        places = (torch.arange(settings.rounds) + 0.5) / max(1, settings.rounds)
        self.times = timesteps_at(target.pipeline.scheduler, places)
        self.begun = False

    def advance(self, rows: list[int], number: int) -> None:
        """See ``TokenSearch.advance``; at the round's noise level."""
        self.begun = True
        weights = [self.weights[i] for i in rows]
        times = self.times[number].repeat(len(rows)).to(self.pictures.device)
        for _ in range(self.settings.iterations):
            loss = self._loss(rows, times)
            gradients = torch.autograd.grad(loss.sum(), weights)
            self.optimizer.zero_grad(set_to_none=True)  # Adam skips tensors without a gradient
            for each, gradient in zip(weights, gradients, strict=True):
                each.grad = gradient.clamp(-1, 1)
            self.optimizer.step()
            for each in weights:
                each.data = on_simplex(each.data)

    def sequences(self, rows: list[int]) -> torch.Tensor:
        """See ``TokenSearch.sequences``; before the first round, the goals themselves."""
        if not self.begun:
            return self.plain.sequences[rows]
        chosen = torch.stack([self.weights[i].detach().argmax(dim=1) for i in rows])
        return self.prompts[rows].filled(self.vocabulary.allowed.to(chosen.device)[chosen])

    def passes(self, rounds: int) -> int:
        """See ``TokenSearch.passes``."""
        return 3 * rounds * self.settings.iterations

    def _loss(self, rows: list[int], times: torch.Tensor) -> torch.Tensor:
        generators = [self.generators[i] for i in rows]
        tried = torch.stack(
            [self._try(self.weights[i], self.generators[i]) for i in rows]
        )  # (R, K, V)
        condition = self.prompts[rows].condition(tried @ self.vocabulary.table)
        pictures = self.pictures[rows]
        noise = noise_like(pictures, generators)
        return denoising_loss(self.target, pictures, noise, times, condition)

    def _try(self, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Sample one-hot tokens by weights (K, V); gradients pass through to the weights."""
        total = weights.detach().cumsum(dim=1)
        draw = torch.rand(len(weights), 1, generator=generator).to(total.device)
        chosen = torch.searchsorted(total, draw * total[:, -1:], right=True).clamp(
            max=total.shape[1] - 1
        )
        one = torch.zeros_like(total).scatter(1, chosen, 1.0)
        return one + weights - weights.detach()


def on_simplex(points: torch.Tensor) -> torch.Tensor:
    """Project points (..., V) onto the probability simplex.

    The threshold is exact, from sorted values (Duchi et al., ICML 2008, figure 1); the released
    code searches for it.
    """
    ordered = points.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - 1
    counts = torch.arange(1, points.shape[-1] + 1, device=points.device)
    size = (ordered * counts > excess).sum(dim=-1, keepdim=True)
    threshold = excess.gather(-1, size - 1) / size
    return (points - threshold).clamp(min=0)


@register("unlearndiffatk")
@takes(UnlearnDiffAtkSettings)
def unlearndiffatk(goal: Goal = "named", **options: Any) -> UnlearnDiffAtk:
    """Tokens before the goal; ``unnamed`` drops the concept's words from the goal."""
    return UnlearnDiffAtk(UnlearnDiffAtkSettings(goal, **options))
