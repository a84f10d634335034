"""MMA-Diffusion's text side (arXiv 2311.17516): the goal's meaning without the concept's words.

A greedy search moves a sequence of tokens until the text encoder's feature of it is close to the
goal's, in cosine; several CLIP encoders have their features side by side. Gradients propose
replacements, tokens that name the concept are left out, and the best of a random batch is kept. The
image model takes no part in the search, and only draws its results, so the attack fits every model
with a CLIP text encoder.
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
from safegen.attacks._gradients import Vocabulary, frozen, open_prompts
from safegen.attacks._text_filter import TextFilter
from safegen.attacks._words import END_OF_WORD
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.tokens import clip_encoders, tokens_given
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting

BEGINNINGS = 1000
"""Most random sequences tried for one that is a text."""


@dataclass(frozen=True)
class MmaSettings(Settings, of="mma"):
    """Settings of the search (defaults: the paper's, with its 1000 iterations in rounds)."""

    tokens: int = setting(20, "Tokens of the prompt.", minimum=1)
    rounds: int = setting(10, "Most pictures per task, one after each round.", minimum=1)
    iterations: int = setting(100, "Replacements per round.", minimum=1)
    top: int = setting(
        256, "Tokens considered at each place, those of the steepest gradient.", minimum=1
    )
    candidates: int = setting(512, "Sequences compared in each iteration.", minimum=1)
    seed: int = setting(0, "Seed of all draws.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Mma(Attack):
    """Search for a text that the text encoder takes for the goal."""

    settings: MmaSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("mma", "text", "white box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned.

        Raises:
            SafegenError: the model has no CLIP text encoder, or none for so many tokens.
        """
        vocabulary, text_filter = Vocabulary(target.pipeline), TextFilter(target.concept)
        longest = vocabulary.tokenizer.model_max_length - 2
        if self.settings.tokens > longest:
            raise SafegenError(
                f"mma: the text encoder takes {longest} tokens, not {self.settings.tokens}"
            )
        yield partial(self._strike, target, vocabulary, text_filter)

    def _strike(
        self,
        target: Target,
        vocabulary: Vocabulary,
        text_filter: TextFilter,
        tasks: Sequence[Task],
    ) -> list[Finding]:
        searches = [TextSearch(vocabulary, text_filter, task, self.settings) for task in tasks]

        def draw(rows: list[int], _number: int) -> list[Drawn]:
            with frozen(target.pipeline):
                for i in rows:
                    searches[i].advance(self.settings.iterations)
            texts = [searches[i].text for i in rows]
            samples = target.draw([tasks[i] for i in rows], texts)
            return [
                Drawn(sample, text, details={"cosine": searches[i].cosine})
                for i, text, sample in zip(rows, texts, samples, strict=True)
            ]

        return search(target, tasks, draw, self.settings.rounds)


class TextSearch:
    """Search for one task; all of its draws are its own.

    Attributes:
        text: best text so far.
        cosine: cosine of its feature and the goal's.
    """

    def __init__(
        self, vocabulary: Vocabulary, text_filter: TextFilter, task: Task, settings: MmaSettings
    ) -> None:
        self.vocabulary = vocabulary
        self.filter = text_filter
        self.settings = settings
        self.generator = task_generator(task, settings.seed)
        pipeline = vocabulary.pipeline
        self.prompt = open_prompts(pipeline, [[~place for place in range(settings.tokens)]])
        goal = open_prompts(pipeline, [vocabulary.tokens(task.text)]).sequences
        with torch.no_grad():
            self.wanted = self._features(goal)  # (1, D)
        names = vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.allowed.tolist())
        plain = [name.removesuffix(END_OF_WORD) for name in names]
        self.usable = torch.tensor(
            [not (text_filter.refuses(each) or text_filter.spells(each)) for each in plain]
        )
        ends = torch.tensor([name.endswith(END_OF_WORD) for name in names])
        self.chosen, self.text = self._beginning((self.usable & ends).nonzero()[:, 0])  # (K,)
        with torch.no_grad():
            self.cosine = float(self._closeness(self._sequences(self.chosen[None])))

    def advance(self, iterations: int) -> None:
        """Replace one token after another, where it helps."""
        for _ in range(iterations):
            candidates = self._candidates(self._steepest())
            texts = [self._text(each) for each in candidates]
            kept = [row for row, text in enumerate(texts) if text is not None]
            if not kept:
                continue
            with torch.no_grad():
                cosines = self._closeness(self._sequences(candidates[kept]))
            best = int(cosines.argmax())
            if float(cosines[best]) > self.cosine:
                self.chosen, self.cosine = candidates[kept[best]], float(cosines[best])
                self.text = str(texts[kept[best]])

    def _steepest(self) -> torch.Tensor:
        """Rows (K, top) of the usable tokens that raise the cosine most, to first order."""
        table = self.vocabulary.table
        embeddings = table[self.chosen.to(table.device)][None].requires_grad_()
        feature = self._features(self.prompt.sequences, self.prompt.mixed(embeddings))
        cosine = torch.nn.functional.cosine_similarity(feature, self.wanted)
        (slope,) = torch.autograd.grad(cosine.sum(), [embeddings])
        gains = (slope[0] @ table.T).cpu().masked_fill(~self.usable, -torch.inf)
        return gains.topk(min(self.settings.top, int(self.usable.sum())), dim=1).indices

    def _candidates(self, steepest: torch.Tensor) -> torch.Tensor:
        """Draw sequences (B, K), each with one token replaced by one of the steepest."""
        count, (places, top) = self.settings.candidates, steepest.shape
        place = torch.randint(places, (count,), generator=self.generator)
        rank = torch.randint(top, (count,), generator=self.generator)
        candidates = self.chosen.repeat(count, 1)
        candidates[torch.arange(count), place] = steepest[place, rank]
        return candidates

    def _beginning(self, words: torch.Tensor) -> tuple[torch.Tensor, str]:
        """Draw tokens that end words, until they are a text."""
        for _ in range(BEGINNINGS if len(words) else 0):
            places = torch.randint(len(words), (self.settings.tokens,), generator=self.generator)
            if (text := self._text(words[places])) is not None:
                return words[places], text
        raise SafegenError("mma: no random tokens of this tokenizer are a text; use fewer tokens")

    def _text(self, chosen: torch.Tensor) -> str | None:
        """Return the text of exactly these tokens (K,); None without one, or if refused."""
        text = self.vocabulary.text(self._sequences(chosen[None])[0])
        refused = text is None or self.filter.refuses(text) or self.filter.spells(text)
        return None if refused else text

    def _sequences(self, chosen: torch.Tensor) -> torch.Tensor:
        """Token sequences (B, L) of rows of the table (B, K)."""
        tokens = self.vocabulary.allowed[chosen].to(self.prompt.sequences.device)
        sequences = self.prompt.sequences.repeat(len(tokens), 1)
        sequences[:, 1 : 1 + tokens.shape[1]] = tokens
        return sequences

    def _closeness(self, sequences: torch.Tensor) -> torch.Tensor:
        """Cosines (B,) of sequences' features and the goal's."""
        return torch.nn.functional.cosine_similarity(self._features(sequences), self.wanted)

    def _features(
        self, sequences: torch.Tensor, embeddings: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states (B, D) at the end tokens of sequences (B, L), or of embeddings of these."""
        pipeline: Any = self.vocabulary.pipeline
        ends = (sequences == self.vocabulary.tokenizer.eos_token_id).int().argmax(dim=1)
        with tokens_given(pipeline, sequences, embeddings):
            encoded = [encoder(sequences) for _, encoder in clip_encoders(pipeline)]
        states = torch.cat([each.last_hidden_state.float() for each in encoded], dim=2)
        return states[torch.arange(len(ends)), ends]


@register("mma")
@takes(MmaSettings)
def mma(**options: Any) -> Mma:
    """Text that the text encoder takes for the goal, without the concept's words."""
    return Mma(MmaSettings(**options))
