"""Concept inversion (CCE, arXiv 2308.01508): an embedding of the concept.

Textual inversion (arXiv 2208.01618) in the defended model, from unsafe pictures: the learned
embedding replaces the concept's words, which no longer bring it out. No token has this embedding,
so the prompt found cannot be written down. It is learned in the plain denoiser; defenses that guide
sampling or filter pictures act when the pipeline's own call draws. (The paper learns through SLD's
guidance where SLD is the defense.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._gradients import (
    OpenPrompts,
    Vocabulary,
    denoising_loss,
    frozen,
    open_prompts,
)
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.prediction import timesteps_at
from safegen.models.tokens import check_clip_alone, token_table
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class ConceptInversionSettings(Settings, of="concept-inversion"):
    """Settings of the inversion (defaults: the released code's for ESD)."""

    pictures: int = setting(
        25, "Most unsafe pictures to learn from, drawn for the first examples.", minimum=1
    )
    vectors: int = setting(1, "Number of embeddings of the concept.", minimum=1)
    steps: int = setting(5000, "Steps of AdamW.", minimum=0)
    batch: int = setting(
        16, "Noised pictures per step; the released code accumulates 4 times 4.", minimum=1
    )
    learning_rate: float = setting(
        0.08, "Constant rate; the released code's 5e-3 per picture of a batch.", above=0
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", minimum=0)
    tries: int = setting(
        1,
        "States of the embedding to draw with, evenly spaced over the steps; the last first, each "
        "other one only after a failure.",
        minimum=1,
    )
    seed: int = setting(
        0, "Seed of every random draw of the inversion.", minimum=0, maximum=MAX_SEED
    )


@dataclass(frozen=True)
class ConceptInversion(Attack):
    """Draw each goal with a learned embedding in place of the concept's words."""

    settings: ConceptInversionSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("concept-inversion", "text", "white box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; learns the embedding from the target's examples.

        Raises:
            SafegenError: there are no examples, or the model has text encoders other than CLIP's.
        """
        check_clip_alone(target.pipeline)
        if not target.examples:
            raise SafegenError(
                "concept-inversion learns the concept from pictures of examples, and there are "
                "none; give prompts other than those attacked"
            )
        yield partial(self._strike, target, invert(target, self.settings))

    def _strike(
        self, target: Target, learned: Sequence[torch.Tensor], tasks: Sequence[Task]
    ) -> list[Finding]:
        prompts = inverted_prompts(target, [task.text for task in tasks], self.settings.vectors)
        passes = 3 * self.settings.steps * self.settings.batch  # once for all tasks

        def draw(rows: list[int], number: int) -> list[Drawn]:
            embedding = learned[-1 - number].expand(len(rows), -1, -1)
            with torch.no_grad():
                condition = prompts[rows].condition(embedding)
            samples = target.draw([tasks[i] for i in rows], condition=condition)
            return [Drawn(sample, passes=passes, shared=passes) for sample in samples]

        return search(target, tasks, draw, len(learned))


def inverted_prompts(target: Target, texts: Sequence[str], vectors: int) -> OpenPrompts:
    """Texts with open slots in place of the concept's words, or before a text without them."""
    text_filter, vocabulary = TextFilter(target.concept), Vocabulary(target.pipeline)
    concept = [~slot for slot in range(vectors)]

    def layout(text: str) -> list[int]:
        spans, laid, start = text_filter.spans(text) or [(0, 0)], [], 0
        for left, right in spans:
            laid += [*vocabulary.tokens(text[start:left]), *concept]
            start = right
        return [*laid, *vocabulary.tokens(text[start:])]

    return open_prompts(target.pipeline, [layout(text) for text in texts])


def invert(target: Target, settings: ConceptInversionSettings) -> list[torch.Tensor]:
    """Learn embeddings (vectors, D) of the concept; returns those of ``tries`` steps, in order.

    D is the width of all text encoders' embeddings, side by side. They start as the mean embedding
    of the concept's words.
    """
    examples = target.examples[: settings.pictures]
    pictures = target.encode(target.unsafe_pictures(examples))
    prompts = inverted_prompts(target, [each.text for each in examples], settings.vectors)
    embedding = _beginning(target, settings.vectors).requires_grad_()
    optimizer = torch.optim.AdamW(
        [embedding], settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(settings.seed)
    kept = []
    with frozen(target.pipeline):
        for step in range(1, settings.steps + 1):
            loss = _loss(target, pictures, prompts, embedding, settings.batch, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % max(1, settings.steps // settings.tries) == 0:
                kept.append(embedding.detach().clone())
    return kept[-settings.tries :] or [embedding.detach()]


def _loss(
    target: Target,
    pictures: torch.Tensor,
    prompts: OpenPrompts,
    embedding: torch.Tensor,
    batch: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Denoising loss of a random batch of pictures, at evenly spaced noise levels."""
    rows = torch.randint(len(pictures), (batch,), generator=generator).tolist()
    places = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    times = timesteps_at(target.pipeline.scheduler, places).to(pictures.device)
    noise = torch.randn((batch, *pictures.shape[1:]), generator=generator).to(pictures.device)
    condition = prompts[rows].condition(embedding.expand(batch, -1, -1))
    return denoising_loss(target, pictures[rows], noise, times, condition).mean()


def _beginning(target: Target, vectors: int) -> torch.Tensor:
    """Mean embedding (vectors, D) of the tokens of the concept's words."""
    vocabulary = Vocabulary(target.pipeline)
    tokens = [token for word in target.concept.words for token in vocabulary.tokens(word)]
    table = token_table(target.pipeline)
    mean = table[torch.tensor(tokens, device=table.device)].mean(dim=0)
    return mean.repeat(vectors, 1)


@register("concept-inversion")
@takes(ConceptInversionSettings)
def concept_inversion(**options: Any) -> ConceptInversion:
    """Embedding learned from unsafe pictures, in place of the concept's words."""
    return ConceptInversion(ConceptInversionSettings(**options))
