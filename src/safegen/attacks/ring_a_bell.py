"""Ring-A-Bell (arXiv 2310.10012): a concept as a direction in the text encoder's space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_rng
from safegen.attacks._gradients import open_prompts
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.conditioning import TextCondition
from safegen.models.tokens import check_clip_alone, clip_encoders, encode_tokens
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class RingABellSettings(Settings, of="ring-a-bell"):
    """Settings of the search (defaults: the released code's)."""

    strength: float = setting(3.0, "eta, the distance along the concept's direction.")
    length: int = setting(16, "K, tokens of the prompt, or as many as fit.", minimum=1)
    population: int = setting(200, "Prompts per generation.", minimum=4)
    generations: int = setting(3000, "Generations of the genetic search.", minimum=1)
    crossover: float = setting(
        0.5, "Probability that a prompt is crossed with another.", minimum=0, maximum=1
    )
    mutation: float = setting(
        0.25, "Probability that one token of a prompt changes.", minimum=0, maximum=1
    )
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class RingABell(Attack):
    """Search for a prompt whose embedding equals the goal's without the concept, plus the concept.

    The concept is the mean difference between embeddings of prompts with and without it. Only the
    text encoder is queried; the model draws one picture of the prompt found.
    """

    settings: RingABellSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("ring-a-bell", "text", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; learns the concept from the target's examples.

        Raises:
            SafegenError: there are no examples, or the model has text encoders other than CLIP's.
        """
        check_clip_alone(target.pipeline)
        text_filter = TextFilter(target.concept)
        concept = concept_vector(target, text_filter)
        tokens = whole_words(clip_encoders(target.pipeline)[0].tokenizer, text_filter)

        def strike(tasks: Sequence[Task]) -> list[Finding]:
            clean = target.embed([text_filter.without(task.text) for task in tasks])
            wanted = in_a_row(clean) + self.settings.strength * concept  # (N, F)
            searches = [
                _Search(self.settings, target.pipeline, tokens, embedding, task)
                for embedding, task in zip(wanted, tasks, strict=True)
            ]
            found = [each.run() for each in searches]

            def draw(_rows: list[int], _number: int) -> list[Drawn]:
                samples = target.draw(tasks, [each.text for each in found])
                return [
                    Drawn(sample, each.text, details={"distance": each.distance})
                    for sample, each in zip(samples, found, strict=True)
                ]

            return search(target, tasks, draw)

        yield strike


def in_a_row(texts: TextCondition) -> torch.Tensor:
    """All hidden states and pooled features of N texts, as rows (N, F)."""
    return torch.cat([value.flatten(1) for value in texts.embeddings.values()], dim=1)


def concept_vector(target: Target, text_filter: TextFilter) -> torch.Tensor:
    """Mean difference of embeddings (F,) of the examples with the concept and without it.

    An example without the concept's words gets one of them, each in turn.

    Raises:
        SafegenError: there are no examples.
    """
    if not target.examples:
        raise SafegenError(
            "ring-a-bell learns the concept from examples, and there are none; "
            "give prompts other than those attacked"
        )
    texts, words = [example.text for example in target.examples], target.concept.words
    named = [
        text if text_filter.refuses(text) else f"{text} {words[number % len(words)]}"
        for number, text in enumerate(texts)
    ]
    clean = [text_filter.without(text) for text in named]
    return (in_a_row(target.embed(named)) - in_a_row(target.embed(clean))).mean(dim=0)


def whole_words(tokenizer: Any, text_filter: TextFilter) -> np.ndarray:
    """List the numbers (N,) of tokens that are words of Latin letters and not refused.

    Each token alone tokenizes its text, so a text made of them has exactly these tokens.

    Raises:
        SafegenError: there are none.
    """
    texts = [tokenizer.decode([number]).strip() for number in range(len(tokenizer))]
    encoded = tokenizer(texts, add_special_tokens=False).input_ids
    fitting = [
        number
        for number, (text, tokens) in enumerate(zip(texts, encoded, strict=True))
        if tokens == [number] and text.isascii() and text.isalpha() and not text_filter.spells(text)
    ]
    if not fitting:
        raise SafegenError("ring-a-bell: the tokenizer has no token that is a word by itself")
    return np.array(fitting)


@dataclass(frozen=True)
class _Found:
    """Prompt found by a search, with its squared distance to the target."""

    text: str
    distance: float


class _Search:
    """Genetic search for one task; ``wanted`` (F,) is the target embedding."""

    def __init__(
        self,
        settings: RingABellSettings,
        pipeline: Any,
        tokens: np.ndarray,
        wanted: torch.Tensor,
        task: Task,
    ) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.tokenizer: Any = clip_encoders(pipeline)[0].tokenizer
        self.tokens = tokens
        self.wanted = wanted
        self.length = min(settings.length, self.tokenizer.model_max_length - 2)
        self.rng = task_rng(task, settings.seed)

    def run(self) -> _Found:
        """Return the nearest prompt of the last generation."""
        population = self._random((self.settings.population, self.length))
        distances = self._distances(population)
        for _ in range(self.settings.generations):
            fittest = distances.argsort(kind="stable")[: self.settings.population // 2]
            population, distances = self._next(population[fittest], distances[fittest])
        nearest = int(distances.argmin())
        text = self.tokenizer.decode(population[nearest].tolist())
        return _Found(text, float(distances[nearest]))

    def _next(self, parents: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Breed the next generation (P, K), sorted parents included, with distances (P,)."""
        population = np.concatenate([parents, self._children(parents)])
        changed = self.rng.random(len(population)) < self.settings.mutation
        changed[0] = False  # keep the fittest
        rows = np.flatnonzero(changed)
        population[rows, self.rng.integers(self.length, size=len(rows))] = self._random(len(rows))
        changed[len(parents) :] = True
        distances = np.concatenate([known, np.empty(len(population) - len(known))])
        distances[changed] = self._distances(population[changed])
        return population, distances

    def _children(self, parents: np.ndarray) -> np.ndarray:
        """Cross parents: two children each, from the head and tail of it and of another."""
        firsts = np.flatnonzero(self.rng.random(len(parents)) < self.settings.crossover)
        seconds = self.rng.integers(len(parents), size=len(firsts))
        points = self.rng.integers(1, self.length + 1, size=(len(firsts), 1))
        head = np.arange(self.length) < points
        one, other = parents[firsts], parents[seconds]
        return np.concatenate([np.where(head, one, other), np.where(head, other, one)])

    def _random(self, shape: int | tuple[int, int]) -> np.ndarray:
        return self.rng.choice(self.tokens, shape)

    @torch.no_grad()
    def _distances(self, population: np.ndarray) -> np.ndarray:
        """Squared distances (P,) of the prompts' embeddings to the target."""
        if not len(population):
            return np.empty(0)
        prompts = open_prompts(self.pipeline, population.tolist())
        embeddings = in_a_row(encode_tokens(self.pipeline, prompts.sequences))  # (P, F)
        distances: np.ndarray = (embeddings - self.wanted).square().sum(dim=1).cpu().numpy()
        return distances


@register("ring-a-bell")
@takes(RingABellSettings)
def ring_a_bell(**options: Any) -> RingABell:
    """Concept direction in the text encoder's space, with a genetic search over tokens."""
    return RingABell(RingABellSettings(**options))
