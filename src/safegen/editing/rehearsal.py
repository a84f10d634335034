"""Rehearsal: benign fine-tuning inside the edit, so that the edit survives a real one.

Fine-tuning an edited model, even on harmless pictures, brings some unsafe content back: a small
movement of the weights suffices where the edit only just holds. So the edit regularly fine-tunes
the model on its benign pictures for a few steps, and learns to redirect from the moved weights as
well as from its own. The idea is ResAlign's (arXiv 2507.16302), which differentiates through the
fine-tuning; here the movement is added and the gradient taken there.

All weights move, as in a real fine-tuning; the edit still trains only its own.
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
"""Steps of the edit between two rehearsals; the first runs at this step."""
STEPS = 20
"""AdamW steps per rehearsal: fewer than a real fine-tuning's, at a higher rate."""
FURTHEST = 1.5
"""Largest move of the weights in an edit's step, as a multiple of the rehearsal's movement."""


class Rehearsal:
    """Movement of a denoiser under benign fine-tuning.

    Attributes:
        movement: movement of each weight in the last rehearsal, by name; empty before the first.

    Args:
        denoiser: the edited denoiser, weights in float32.
        source: source of benign pictures.
        settings: settings of the edit.
    """

    def __init__(
        self, denoiser: torch.nn.Module, source: BatchSource, settings: EditSettings
    ) -> None:
        self._denoiser = denoiser
        self._source = source
        self._settings = settings
        self.movement: dict[str, torch.Tensor] = {}

    def times(self, steps: int) -> int:
        """Number of rehearsals in an edit of ``steps`` steps."""
        return sum(map(self.is_due, range(steps)))

    def is_due(self, step: int) -> bool:
        """Tell whether to rehearse before a step."""
        return self._settings.rehearsal.share > 0 and step > 0 and step % EVERY == 0

    def rehearse(self, step: int, count: int | None = None) -> None:
        """Fine-tune, record the movement, and restore the weights.

        Args:
            step: step of the edit, which seeds the draws.
            count: fine-tuning steps (default: ``STEPS``).
        """
        parameters = list(self._denoiser.parameters())
        optimizer = self._optimizer()
        generator = self._generator(f"rehearsal-{step}")
        self.movement = {}  # frees its memory
        with put_back(self._denoiser) as before, all_trained(self._denoiser):
            for _ in range(count or STEPS):
                # Not by backward(), which accelerate hooks with several processes.
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
        """Move the weights part of the way in the block, for a share of the steps."""
        share, distance = torch.rand(2, generator=self._generator(f"moved-{step}")).tolist()
        if not self.movement or share >= self._settings.rehearsal.share:
            yield
            return
        with put_back(self._denoiser):
            with torch.no_grad():
                for name, parameter in self._denoiser.named_parameters():
                    parameter.add_(self.movement[name], alpha=FURTHEST * distance)
            yield

    def _optimizer(self) -> torch.optim.Optimizer:
        """Make AdamW, each weight's learning rate a share of the weight's size; a bias has that of
        its layer's weight, since many are zero."""
        share, found = self._settings.rehearsal.step_size, dict(self._denoiser.named_parameters())
        groups = []
        for name, parameter in found.items():
            sized = found.get(name.replace(".bias", ".weight"), parameter).detach()
            groups.append(
                {"params": [parameter], "lr": share * float(sized.square().mean().sqrt())}
            )
        return torch.optim.AdamW(groups)

    def _loss(self, generator: torch.Generator) -> torch.Tensor:
        """Denoising loss on benign pictures under their captions."""
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
