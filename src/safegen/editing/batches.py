"""What a training step sees: noised latents, timesteps, text conditions and targets.

Every draw of step ``i`` comes from a generator seeded with (seed, i), so a step can be repeated
without the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings, Mixture
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import embed_prompts, embed_random_tokens
from safegen.models.prediction import add_noise, clean_latent, prediction_of, signal_and_noise

RANDOM_TEXTS = 256
ADVERSARIES = 24
ADVERSARY_RATE = 0.02
"""Length of a step, as a share of a token embedding's own length."""


@dataclass(frozen=True)
class Batch:
    """One half of a step: B pictures, each seen under V texts.

    V is 2 where guided predictions count, the first text then being the empty prompt, else 1.

    Attributes:
        z_t: noised latents (B, C, H, W).
        timesteps: integer timesteps (B,).
        rows: the texts (B, V), as rows of ``Conditions.table``.
        target: the clean latents (B, V, C, H, W) that the model should see in z_t.
        clean: the clean latents (B, C, H, W) of the pictures themselves.
        noise: the noise (B, C, H, W) in z_t.
    """

    z_t: torch.Tensor
    timesteps: torch.Tensor
    rows: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor

    def part(self, index: int, count: int) -> Batch:
        """Every ``count``-th picture from ``index`` on: one process's share."""
        return self.chosen(torch.arange(index, len(self.z_t), count))

    def chosen(self, pictures: torch.Tensor) -> Batch:
        """The pictures of these numbers."""
        return Batch(*(getattr(self, name)[pictures] for name in self.__dataclass_fields__))

    def by_text(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """z_t, timesteps and texts as the denoiser takes them, (B * V, ...): picture by picture."""
        texts = self.rows.shape[1]
        repeated = (part.repeat_interleave(texts, 0) for part in (self.z_t, self.timesteps))
        return (*repeated, self.rows.flatten())  # type: ignore[return-value]


class Conditions:
    """A table of text embeddings (N, L, D): the empty prompt, random texts, benign captions, and
    adversaries.

    Adversaries begin as random texts and are moved, while the edit trains, to where they best
    bring the unsafe pictures back: textual inversion (arXiv 2208.01618) in the inner loop. They
    are found from pictures alone; no unsafe text is used.
    """

    def __init__(self, pipeline: Any, captions: tuple[str, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        empty = embed_prompts(pipeline, [""])
        random = embed_random_tokens(pipeline, RANDOM_TEXTS, generator)
        unique = sorted(set(captions))
        captioned = [embed_prompts(pipeline, unique)] if unique else []
        parts = [empty, random, *captioned, random[:ADVERSARIES]]
        self.table = torch.cat([part.cpu() for part in parts])
        first = 1 + RANDOM_TEXTS
        self.caption_rows = torch.tensor(
            [first + unique.index(caption) for caption in captions], dtype=torch.long
        )
        self._lengths = self.adversaries.norm(dim=-1, keepdim=True)

    @property
    def adversaries(self) -> torch.Tensor:
        """The adversaries (K, L, D), a view of the table's last rows."""
        return self.table[-ADVERSARIES:]

    def draw(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Rows of the table for benign pictures (B,): empty, random, the picture's caption, or an
        adversary."""
        count = len(pictures)
        chance = torch.rand(count, generator=generator)
        rows = torch.randint(1, 1 + RANDOM_TEXTS, (count,), generator=generator)
        rows[chance < mixture.empty] = 0
        adversarial = chance >= 1 - mixture.adversarial
        if len(self.caption_rows):
            captioned = (chance >= mixture.empty + mixture.random) & ~adversarial
            rows[captioned] = self.caption_rows[pictures][captioned]
        last = len(self.table) - ADVERSARIES
        rows[adversarial] = last + rows[adversarial] % ADVERSARIES
        return rows

    def pull(self, rows: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """What a loss's gradient (B, L, D) says of each adversary, (K, L, D); rows of others do
        not count."""
        first = len(self.table) - ADVERSARIES
        chosen = rows >= first
        pull = torch.zeros_like(self.adversaries)
        return pull.index_add_(0, rows[chosen] - first, gradient[chosen].float().cpu())

    def move_adversaries(self, pull: torch.Tensor) -> None:
        """Move each adversary against its pull (K, L, D); every token keeps its length.

        One with no pull, or one that is not finite, stays.
        """
        size = pull.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
        moved = (size > 0) & torch.isfinite(size)
        step = ADVERSARY_RATE * self._lengths.mean(dim=1, keepdim=True) * pull / size
        direction = torch.nn.functional.normalize(self.adversaries - step, dim=-1)
        self.adversaries.copy_(torch.where(moved, direction * self._lengths, self.adversaries))


class BatchSource:
    """Draws the unsafe and the benign half of every step.

    With teacher preservation it asks the still unedited denoiser once, for a fixed pool.
    """

    def __init__(self, pipeline: Any, triplets: TripletLatents, settings: EditSettings) -> None:
        self.triplets = triplets
        self.settings = settings
        self.scheduler = pipeline.scheduler
        self.kind = prediction_of(pipeline.scheduler)
        self.timestep_count = int(pipeline.scheduler.config.num_train_timesteps)
        self.conditions = Conditions(pipeline, triplets.captions, settings.seed)
        self._pool: Batch | None = None
        if settings.preservation == "teacher":
            self._pool = self._ask_teacher(denoiser_of(pipeline))

    def halves(self, step: int, part: int) -> tuple[Batch, Batch]:
        """The unsafe and the benign batch of an accumulation part of a step."""
        generator = self._generator(step * self.settings.accumulation + part)
        return self._redirect(generator), self._preserve(generator)

    def _redirect(self, generator: torch.Generator) -> Batch:
        count, triplets = self.settings.batch, self.triplets
        pairs = torch.randint(len(triplets.unsafe), (count,), generator=generator)
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, self.settings.redirect_mixture, generator)
        unsafe, censored = triplets.unsafe[pairs], triplets.censored[pairs]
        low, high = self.settings.strengths
        strength = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
        seen = censored + strength * (unsafe - censored)
        return replace(self._noised(seen, censored, rows, generator), clean=unsafe)

    def _preserve(self, generator: torch.Generator) -> Batch:
        count = self.settings.benign_batch or self.settings.batch
        if self._pool is None:
            return self._fresh_benign(count, generator)
        chosen = torch.randint(len(self._pool.z_t), (count,), generator=generator)
        return self._pool.chosen(chosen)

    def _fresh_benign(self, count: int, generator: torch.Generator) -> Batch:
        pictures = torch.randint(len(self.triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, self.settings.preserve_mixture, generator)
        clean = self.triplets.benign[pictures]
        return self._noised(clean, clean, rows, generator)

    def _texts(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Rows (B, V) of the texts under which pictures are seen."""
        rows = self.conditions.draw(pictures, mixture, generator)
        if self.settings.guidance == 1:
            return rows[:, None]
        return torch.stack([torch.zeros_like(rows), rows], dim=1)

    def _noised(
        self,
        clean: torch.Tensor,
        target: torch.Tensor,
        rows: torch.Tensor,
        generator: torch.Generator,
    ) -> Batch:
        timesteps = self._timesteps(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator)
        a, s = signal_and_noise(self.scheduler, timesteps)
        z_t = add_noise(clean, noise, a, s)
        targets = target[:, None].expand(-1, rows.shape[1], *target.shape[1:])
        return Batch(z_t, timesteps, rows, targets, clean, noise)

    def _timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Uniform timesteps, one from each of ``count`` equal ranges: less variance in a batch."""
        ranges = torch.randperm(count, generator=generator)
        places = (ranges + torch.rand(count, generator=generator)) / count
        return (places * self.timestep_count).long().clamp(max=self.timestep_count - 1)

    @torch.no_grad()
    def _ask_teacher(self, denoiser: torch.nn.Module, batch: int = 16) -> Batch:
        """The original's clean-latent predictions on the pool."""
        generator = self._generator(-1)
        triplets, count = self.triplets, self.settings.pool
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, self.settings.preserve_mixture, generator)
        clean = triplets.benign[pictures]
        drawn = self._noised(clean, clean, rows, generator)
        weight = next(denoiser.parameters())
        seen = []
        for chosen in torch.split(torch.arange(count), batch):
            part = drawn.chosen(chosen)
            z_t, timesteps, texts = part.by_text()
            output = denoiser(
                z_t.to(weight.device, weight.dtype),
                timesteps.to(weight.device),
                self.conditions.table[texts].to(weight.device, weight.dtype),
            ).sample
            a, s = signal_and_noise(self.scheduler, timesteps)
            clean_seen = clean_latent(output.float().cpu(), z_t, a, s, self.kind)
            seen.append(clean_seen.view_as(part.target))
        return replace(drawn, target=torch.cat(seen))

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed + 1) * 1_000_003 + number)
