"""What a training step sees: noised latents, timesteps, text conditions and targets.

Every draw of step ``i`` comes from a generator seeded with (seed, i), so a step can be repeated
without the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings, Mixture
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import embed_prompts, embed_random_tokens
from safegen.models.prediction import add_noise, clean_latent, prediction_of, signal_and_noise

RANDOM_TEXTS = 256


@dataclass(frozen=True)
class Batch:
    """One half of a step; all tensors have B rows.

    Attributes:
        z_t: noised latents.
        timesteps: integer timesteps.
        condition: text embeddings (B, L, D).
        target: the clean latent that the model should see in z_t.
        clean: the clean latent that z_t was made from.
        noise: the noise in z_t.
    """

    z_t: torch.Tensor
    timesteps: torch.Tensor
    condition: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor

    def part(self, index: int, count: int) -> Batch:
        """Every ``count``-th row from ``index`` on: one process's share."""
        return Batch(*(getattr(self, name)[index::count] for name in self.__dataclass_fields__))


class Conditions:
    """A table of text embeddings: the empty prompt, random texts, benign captions."""

    def __init__(self, pipeline: Any, captions: tuple[str, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        empty = embed_prompts(pipeline, [""])
        random = embed_random_tokens(pipeline, RANDOM_TEXTS, generator)
        unique = sorted(set(captions))
        parts = [empty, random, *([embed_prompts(pipeline, unique)] if unique else [])]
        self.table = torch.cat([part.cpu() for part in parts])
        first = 1 + RANDOM_TEXTS
        self.caption_rows = torch.tensor(
            [first + unique.index(caption) for caption in captions], dtype=torch.long
        )

    def draw(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Rows of the table for benign pictures (B,): empty, random, or the picture's caption."""
        count = len(pictures)
        chance = torch.rand(count, generator=generator)
        rows = torch.randint(1, 1 + RANDOM_TEXTS, (count,), generator=generator)
        rows[chance < mixture.empty] = 0
        if len(self.caption_rows):
            captioned = chance >= mixture.empty + mixture.random
            rows[captioned] = self.caption_rows[pictures][captioned]
        return rows


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
        rows = self.conditions.draw(pictures, self.settings.redirect_mixture, generator)
        return self._noised(triplets.unsafe[pairs], triplets.censored[pairs], rows, generator)

    def _preserve(self, generator: torch.Generator) -> Batch:
        count = self.settings.batch
        if self._pool is None:
            return self._fresh_benign(count, generator)
        chosen = torch.randint(len(self._pool.z_t), (count,), generator=generator)
        pool = self._pool
        return Batch(
            pool.z_t[chosen],
            pool.timesteps[chosen],
            self.conditions.table[pool.condition[chosen]],
            pool.target[chosen],
            pool.clean[chosen],
            pool.noise[chosen],
        )

    def _fresh_benign(self, count: int, generator: torch.Generator) -> Batch:
        pictures = torch.randint(len(self.triplets.benign), (count,), generator=generator)
        rows = self.conditions.draw(pictures, self.settings.preserve_mixture, generator)
        clean = self.triplets.benign[pictures]
        return self._noised(clean, clean, rows, generator)

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
        return Batch(z_t, timesteps, self.conditions.table[rows], target, clean, noise)

    def _timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Uniform timesteps, one from each of ``count`` equal ranges: less variance in a batch."""
        ranges = torch.randperm(count, generator=generator)
        places = (ranges + torch.rand(count, generator=generator)) / count
        return (places * self.timestep_count).long().clamp(max=self.timestep_count - 1)

    @torch.no_grad()
    def _ask_teacher(self, denoiser: torch.nn.Module, batch: int = 32) -> Batch:
        """The original's clean-latent predictions on the pool; conditions are kept as rows."""
        generator = self._generator(-1)
        triplets, count = self.triplets, self.settings.pool
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self.conditions.draw(pictures, self.settings.preserve_mixture, generator)
        clean = triplets.benign[pictures]
        drawn = self._noised(clean, clean, rows, generator)
        a, s = signal_and_noise(self.scheduler, drawn.timesteps)
        weight = next(denoiser.parameters())
        outputs = []
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            output = denoiser(
                drawn.z_t[part].to(weight.device, weight.dtype),
                drawn.timesteps[part].to(weight.device),
                drawn.condition[part].to(weight.device, weight.dtype),
            ).sample
            outputs.append(output.float().cpu())
        seen = clean_latent(torch.cat(outputs), drawn.z_t, a, s, self.kind)
        return Batch(drawn.z_t, drawn.timesteps, rows, seen, clean, drawn.noise)

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed + 1) * 1_000_003 + number)
