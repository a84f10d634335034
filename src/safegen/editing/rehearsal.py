"""Benign fine-tuning, rehearsed while an edit trains, so that its effect outlasts a real one.

Whoever trains an edited model on, though on harmless pictures, brings some of the unsafe back:
little movement of the weights is enough where the edit only just holds. So the edit fine-tunes
the model on its benign pictures now and then, for a moment, and learns to redirect from where that
leads as well as from where it is. The idea is ResAlign's (arXiv 2507.16302), which takes a gradient
through the fine-tuning; here the movement is added, and the gradient taken there.

All weights are moved, for a fine-tuning moves all. What the edit changes remains what it trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safegen.editing.batches import BatchSource
from safegen.editing.memory.precision import autocast
from safegen.editing.settings import EditSettings
from safegen.models.denoising import predict
from safegen.models.moving import all_trained, put_back
from safegen.models.prediction import output_for, signal_and_noise
from safegen.seeds import sample_seed

EVERY = 40
"""Steps of the edit between two rehearsals; the first is at that step."""
STEPS = 20
"""Of AdamW in one: fewer than a fine-tuning has, at a higher rate."""
FURTHEST = 1.5
"""Up to where an edit's step moves the weights, as a multiple of where the rehearsal ended."""


class Rehearsal:
    """Where benign fine-tuning would move a denoiser.

    Attributes:
        movement: of each weight by name, in the last rehearsal; empty before the first.

    Args:
        denoiser: that is edited, its weights in float32.
        source: of the edit's benign pictures.
        settings: of the edit.
    """

    def __init__(
        self, denoiser: torch.nn.Module, source: BatchSource, settings: EditSettings
    ) -> None:
        self._denoiser = denoiser
        self._source = source
        self._settings = settings
        self.movement: dict[str, torch.Tensor] = {}

    def times(self, steps: int) -> int:
        """How often an edit of so many steps rehearses."""
        return sum(map(self.is_due, range(steps)))

    def is_due(self, step: int) -> bool:
        """Whether to rehearse before a step of the edit."""
        return self._settings.rehearsal.share > 0 and step > 0 and step % EVERY == 0

    def rehearse(self, step: int, count: int | None = None) -> None:
        """Fine-tune, remember where that leads, and go back.

        Args:
            step: of the edit, from which the draws follow.
            count: steps of the fine-tuning; ``STEPS`` unless given.
        """
        parameters = list(self._denoiser.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=self._settings.rehearsal.learning_rate)
        generator = self._generator(f"rehearsal-{step}")
        self.movement = {}  # its memory is needed
        with put_back(self._denoiser) as before, all_trained(self._denoiser):
            for _ in range(count or STEPS):
                # Not by backward(), for which accelerate has hooks where there are more processes.
                loss = self._loss(generator)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            for name, parameter in self._denoiser.named_parameters():
                self.movement[name] = parameter.detach() - before[name]

    @contextmanager
    def moved(self, step: int) -> Iterator[None]:
        """In the block, for a share of the steps, the weights are somewhere on the way there."""
        share, distance = torch.rand(2, generator=self._generator(f"moved-{step}")).tolist()
        if not self.movement or share >= self._settings.rehearsal.share:
            yield
            return
        with put_back(self._denoiser):
            with torch.no_grad():
                for name, parameter in self._denoiser.named_parameters():
                    parameter.add_(self.movement[name], alpha=FURTHEST * distance)
            yield

    def _loss(self, generator: torch.Generator) -> torch.Tensor:
        """The model's own objective on benign pictures under their captions."""
        settings, source = self._settings, self._source
        device = next(self._denoiser.parameters()).device
        batch = source.captioned(generator).to(device)
        z_t, timesteps, texts = batch.by_text()
        condition = source.conditions.table[texts.cpu()].to(device)
        with autocast(settings, device):
            output = predict(self._denoiser, z_t, timesteps, condition)
        a, s = signal_and_noise(source.scheduler, timesteps)
        target = output_for(batch.clean, z_t, a, s, source.kind)
        return (output - target).square().mean()

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(sample_seed(purpose, base=self._settings.seed))
