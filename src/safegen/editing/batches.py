"""Batches of a training step: noised latents, timesteps, text conditions and targets.

Every draw of step ``i`` comes from a generator seeded with (seed, i), so a step is repeatable
without the steps before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from safegen.editing.conditions import Conditions
from safegen.editing.cutmix import rectangles
from safegen.editing.latents import HeldBack, TripletLatents
from safegen.editing.settings import EditSettings, Mixture
from safegen.models.prediction import (
    add_noise,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)

OVERSHOT = 0.6
"""Largest s / a by which the target overshoots the unsafe content in the noise: at high noise,
s / a times as much far exceeds what any picture holds."""


@dataclass(frozen=True)
class Batch:
    """One half of a step: B pictures, each under V texts.

    V is 2 (the empty prompt first) for guided predictions, else 1.

    Attributes:
        z_t: noised latents (B, C, H, W).
        timesteps: integer timesteps (B,).
        rows: text rows (B, V) of ``Conditions.table``.
        target: clean-latent targets (B, V, C, H, W) of the prediction from z_t.
        clean: clean latents (B, C, H, W) of the pictures.
        noise: noise (B, C, H, W) in z_t.
    """

    z_t: torch.Tensor
    timesteps: torch.Tensor
    rows: torch.Tensor
    target: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor

    def part(self, index: int, count: int) -> Batch:
        """Take every ``count``-th picture from ``index`` on: one process's share."""
        return self.chosen(torch.arange(index, len(self.z_t), count))

    def chosen(self, pictures: torch.Tensor) -> Batch:
        """Select pictures by index."""
        return Batch(*(getattr(self, name)[pictures] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def by_text(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """z_t, timesteps and texts as the denoiser takes them, (B * V, ...), picture by picture."""
        texts = self.rows.shape[1]
        repeated = (part.repeat_interleave(texts, 0) for part in (self.z_t, self.timesteps))
        return (*repeated, self.rows.flatten())  # type: ignore[return-value]


class BatchSource:
    """Draw the unsafe and the benign half of every step.

    Args:
        pipeline: the edited pipeline.
        triplets: the encoded triplets.
        settings: settings of the edit.

    Attributes:
        distance: mean of |z_u - z_c|^2 per value of the latents, the unit of the exact losses.
    """

    def __init__(self, pipeline: Any, triplets: TripletLatents, settings: EditSettings) -> None:
        self.triplets = triplets
        self.settings = settings
        self.scheduler = pipeline.scheduler
        self.kind = prediction_of(pipeline.scheduler)
        self.conditions = Conditions(pipeline, triplets.captions, settings.seed)
        self.distance = triplets.distance()

    def halves(self, step: int, part: int) -> tuple[Batch, Batch]:
        """Draw the unsafe and the benign batch of one gradient-accumulation part of a step."""
        generator = self._generator(step * self.settings.optimisation.gradient_accumulation + part)
        return self._redirect(generator), self._preserve(generator)

    def _redirect(self, generator: torch.Generator) -> Batch:
        count, triplets = self.settings.data.unsafe_batch, self.triplets
        pairs = torch.randint(len(triplets.unsafe), (count,), generator=generator)
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, self.settings.redirect.mixture, generator)
        unsafe, censored = self._cutmix((triplets.unsafe, triplets.censored), pairs, generator)
        low, high = self.settings.redirect.interpolation_range
        strength = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
        seen = censored + strength * (unsafe - censored)
        leaning = self._unsafe_noise(count, generator) * (unsafe - censored)
        timesteps = self._timesteps(count, generator)
        drawn = self._noised(seen, censored, rows, timesteps, generator, leaning)
        a, s = (
            each.view(-1, 1, 1, 1) for each in signal_and_noise(self.scheduler, drawn.timesteps)
        )
        past = seen - censored + (s / a).clamp(max=OVERSHOT) * leaning
        target = drawn.target - self.settings.redirect.overshoot * past[:, None]
        return replace(drawn, target=target, clean=unsafe)

    def _unsafe_noise(self, count: int, generator: torch.Generator) -> torch.Tensor | float:
        """Draw multiples (B, 1, 1, 1) of the unsafe latent for the noise: 0 for half of the
        pictures, so that plain noise stays the main lesson."""
        if not self.settings.redirect.unsafe_noise:
            return 0.0
        drawn = 2 * torch.rand(count, 1, 1, 1, generator=generator) - 1
        return self.settings.redirect.unsafe_noise * drawn.clamp(min=0)

    def _preserve(self, generator: torch.Generator) -> Batch:
        count, triplets = self.settings.data.preserve_batch, self.triplets
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, self.settings.preserve.mixture, generator)
        if self.settings.preserve.target == "teacher":
            (clean,) = self._cutmix((triplets.benign,), pictures, generator)
        else:  # as published
            clean = triplets.benign[pictures]
        return self._noised(clean, clean, rows, self._timesteps(count, generator), generator)

    def held_back(self, pairs: HeldBack, place: float) -> Batch:
        """Noise held-back pairs under random texts, the same at each call.

        Args:
            pairs: the pairs.
            place: place in the schedule, from 0 (no noise) to 1.
        """
        count, generator = len(pairs.unsafe), torch.Generator().manual_seed(self.settings.seed)
        pictures = torch.randint(len(self.triplets.benign), (count,), generator=generator)
        rows = self._texts(pictures, Mixture(empty=0.0, random=1.0), generator)
        timesteps = timesteps_at(self.scheduler, torch.full((count,), place))
        drawn = self._noised(pairs.unsafe, pairs.censored, rows, timesteps, generator)
        return replace(drawn, clean=pairs.unsafe)

    def captioned(self, generator: torch.Generator) -> Batch:
        """Draw benign pictures as ordinary fine-tuning does: each under its caption alone, or under
        the empty prompt without captions."""
        count, triplets = self.settings.data.preserve_batch, self.triplets
        mixture = Mixture(empty=0.0, caption=1.0) if triplets.captions else Mixture()
        pictures = torch.randint(len(triplets.benign), (count,), generator=generator)
        rows = self.conditions.draw(pictures, mixture, generator)[:, None]
        clean = triplets.benign[pictures]
        return self._noised(clean, clean, rows, self._timesteps(count, generator), generator)

    def _texts(
        self, pictures: torch.Tensor, mixture: Mixture, generator: torch.Generator
    ) -> torch.Tensor:
        """Draw the text rows (B, V) of pictures."""
        rows = self.conditions.draw(pictures, mixture, generator)
        if self.settings.loss.guidance_scale == 1:
            return rows[:, None]
        return torch.stack([torch.zeros_like(rows), rows], dim=1)

    def _cutmix(
        self, latents: Sequence[torch.Tensor], chosen: torch.Tensor, generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Select the chosen (B,) of each paired latent tensor (N, C, H, W); some get a CutMix
        rectangle of another picture, the same in each tensor."""
        count, share = len(chosen), self.settings.data.cutmix
        if not share:
            return [each[chosen] for each in latents]
        height, width = latents[0].shape[-2:]
        inside = rectangles(count, height, width, share, generator)
        others = torch.randint(len(latents[0]), (count,), generator=generator)
        return [torch.where(inside, each[others], each[chosen]) for each in latents]

    def _noised(
        self,
        clean: torch.Tensor,
        target: torch.Tensor,
        rows: torch.Tensor,
        timesteps: torch.Tensor,
        generator: torch.Generator,
        leaning: torch.Tensor | float = 0.0,
    ) -> Batch:
        noise = torch.randn(clean.shape, generator=generator) + leaning
        a, s = signal_and_noise(self.scheduler, timesteps)
        z_t = add_noise(clean, noise, a, s)
        targets = target[:, None].expand(-1, rows.shape[1], *target.shape[1:])
        return Batch(z_t, timesteps, rows, targets, clean, noise)

    def _timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw one uniform timestep from each of ``count`` equal ranges, for less variance."""
        ranges = torch.randperm(count, generator=generator)
        places = (ranges + torch.rand(count, generator=generator)) / count
        return timesteps_at(self.scheduler, places)

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(
            ((self.settings.seed + 1) * 1_000_003 + number) % 2**63
        )
