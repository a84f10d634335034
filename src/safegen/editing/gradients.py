"""Gradients of both halves of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from safegen.editing.batches import Batch, BatchSource
from safegen.editing.losses import half_losses, unsafe_distance
from safegen.editing.memory.precision import autocast
from safegen.editing.optimizers import Optimizers
from safegen.editing.processes import Processes
from safegen.editing.teacher import Teacher
from safegen.models.conditioning import TextCondition
from safegen.models.denoising import predict


class Gradients:
    """Add one half's gradient to the trained weights' gradients.

    The halves run one after the other, so memory holds the activations of one.

    Args:
        model: the denoiser, wrapped for all processes.
        source: source of the batches.
        optimizers: optimizers of the trained weights.
        processes: processes that share each batch.
        teacher: teacher of the benign half; None where its targets are the pictures themselves.
    """

    def __init__(
        self,
        model: Any,
        source: BatchSource,
        optimizers: Optimizers,
        processes: Processes,
        teacher: Teacher | None,
    ) -> None:
        self._model = model
        self._source = source
        self._settings = source.settings
        self._optimizers = optimizers
        self._processes = processes
        self._teacher = teacher

    def redirect(self, unsafe: Batch, attacking: bool) -> torch.Tensor:
        """Add L_m's gradient; returns the loss's share of the step, a scalar.

        Args:
            unsafe: the unsafe half.
            attacking: also move the adversaries to where the model predicts more unsafe content.
        """
        batch = self._processes.own_part(unsafe)
        attacking = attacking and self._settings.redirect.mixture.adversarial > 0
        output, embeddings = self._predict(batch, attacking)
        if attacking:
            self._strengthen_adversaries(output, embeddings, batch)
        losses = half_losses(output, batch, self._source, redirecting=True)
        return self._learn(losses.mean(), self._settings.redirect.weight)

    def preserve(self, benign: Batch, weight: float) -> torch.Tensor:
        """Add L_p's gradient, weighted; returns the loss's share of the step, a scalar."""
        batch = self._processes.own_part(benign)
        if self._teacher is not None:
            batch = self._teacher.answered(batch)
        output, _ = self._predict(batch, attacked=False)
        losses = half_losses(output, batch, self._source, redirecting=False)
        return self._learn(losses.mean(), weight)

    def _learn(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        parts = self._settings.optimisation.gradient_accumulation
        self._optimizers.backward(weight / parts * loss)
        return self._processes.mean(loss.detach()) / parts

    def _predict(
        self, batch: Batch, attacked: bool
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return the denoiser's output and the text embeddings, with gradients if attacked."""
        z_t, timesteps, texts = batch.by_text()
        condition: TextCondition = self._source.conditions.table[texts.cpu()].to(z_t.device)
        for embedding in condition.embeddings.values():
            embedding.requires_grad_(attacked)
        with autocast(self._settings, z_t.device):
            output = predict(self._model, z_t, timesteps, condition)
        return output, condition.embeddings

    def _strengthen_adversaries(
        self, output: torch.Tensor, embeddings: Mapping[str, torch.Tensor], unsafe: Batch
    ) -> None:
        distance = unsafe_distance(output, unsafe, self._source).sum()
        found = torch.autograd.grad(distance, tuple(embeddings.values()), retain_graph=True)
        conditions, (_, _, texts) = self._source.conditions, unsafe.by_text()
        pull = conditions.pull(texts.cpu(), dict(zip(embeddings, found, strict=True)))
        conditions.move_adversaries({n: self._processes.sum(p) for n, p in pull.items()})
